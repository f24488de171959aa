// Metrics that keep the values they are given.
export const kept = {};

class Metric {
  constructor(name) {
    if (!/^[a-zA-Z_]\w*$/.test(name)) {
      throw new Error(`k6 takes no metric called ${name}`);
    }
    this.values = kept[name] = [];
  }

  add(value) {
    this.values.push(value);
  }
}

export class Rate extends Metric {}
export class Trend extends Metric {}
