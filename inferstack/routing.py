"""Which deployment a request goes to. Pure."""

from collections.abc import Iterable

from inferstack.deployment import Deployment, DeploymentState
from inferstack.errors import DeploymentUnavailableError, ModelNotFoundError


def resolve(deployments: Iterable[Deployment], model: str, version: int | None) -> Deployment:
    """Finds the deployment for a model and version.

    Args:
        deployments: what the registry knows.
        model: name of the model.
        version: a version, or None for the highest one that can take work.

    Raises:
        ModelNotFoundError: no such model, or no such version of it.
        DeploymentUnavailableError: it is known, but failed to load.
    """
    versions = {d.version: d for d in deployments if d.model == model}
    if not versions:
        raise ModelNotFoundError(f"there is no model '{model}'")
    if version is None:
        return _pick(versions)
    if version not in versions:
        known = ", ".join(str(v) for v in sorted(versions))
        raise ModelNotFoundError(f"model '{model}' has no version {version}; it has {known}")
    return _usable(versions[version])


def _pick(versions: dict[int, Deployment]) -> Deployment:
    usable = [d for d in versions.values() if d.state is not DeploymentState.FAILED]
    ready = [d for d in usable if d.state is DeploymentState.READY]
    best = max(ready or usable or list(versions.values()), key=lambda d: d.version)
    return _usable(best)


def _usable(deployment: Deployment) -> Deployment:
    if deployment.state is DeploymentState.FAILED:
        raise DeploymentUnavailableError(f"{deployment.name} failed to load: {deployment.reason}")
    return deployment
