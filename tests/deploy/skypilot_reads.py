"""What SkyPilot makes of a task: run by an interpreter that has it, in a home of its own, without a cloud.

    HOME=... python skypilot_reads.py TASK.yaml CATALOG.csv

SkyPilot's catalog of GCP is CATALOG.csv, its clouds GCP alone. Prints JSON: what its parser read, and the machines that
its optimiser chose of that catalog.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

ACCELERATORS = "AcceleratorName,Clouds\nL4,GCP\n"
IMAGES = "Tag,Region,OS,OSVersion,ImageId,CreationDate\n"
QUOTAS = "Accelerator,Region,SpotInstanceCode,OnDemandInstanceCode\n"


def main(task_file: str, catalog: str) -> None:
    """Parses, and chooses."""
    folder = Path.home() / ".sky" / "catalogs" / "v8" / "gcp"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(catalog, folder / "vms.csv")
    (folder.parent / "common").mkdir(exist_ok=True)
    (folder.parent / "common" / "accelerators.csv").write_text(ACCELERATORS)
    (folder / "images.csv").write_text(IMAGES)
    (folder / "accelerator_quota_mapping.csv").write_text(QUOTAS)

    import sky
    import yaml
    from sky import clouds, global_user_state, skypilot_config
    from sky.optimizer import Optimizer

    workspace = skypilot_config.get_active_workspace()
    global_user_state.set_enabled_clouds(["GCP"], clouds.cloud.CloudCapability.COMPUTE, workspace)
    global_user_state.set_allowed_clouds(sky.check._get_workspace_allowed_clouds(workspace), workspace)
    task = sky.Task.from_yaml_config(
        yaml.safe_load(Path(task_file).read_text()), secrets_overrides={"RAY_AUTH_TOKEN": "0" * 64}
    )
    task.validate(skip_file_mounts=False)
    with sky.Dag() as dag:
        dag.add(task)
    Optimizer.optimize(dag, quiet=True)
    best = task.best_resources
    said = {
        "name": task.name,
        "num_nodes": task.num_nodes,
        "instance_type": best.instance_type,
        "use_spot": best.use_spot,
        "accelerators": best.accelerators,
        "an_hour": best.get_cost(3600),
        "job_recovery": best.job_recovery,
        "image": best.extract_docker_image(),
        "secrets": sorted(task.secrets),
        "mounts": sorted(task.file_mounts or {}),
    }
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
