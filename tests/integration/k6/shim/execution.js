// What a script of k6 reads of `k6/execution`; whoever drives the script sets it.
export default { scenario: { name: '', iterationInTest: 0 } };
