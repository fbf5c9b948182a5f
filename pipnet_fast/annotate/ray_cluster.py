"""Shares of the work on a Ray cluster, whose machines see the run's folder and the images by the same names."""

from collections.abc import Iterator, Sequence

from pipnet_fast.annotate.processes import DEATHS
from pipnet_fast.annotate.work import Job, use_one_thread, worker
from pipnet_fast.data._optional import import_optional


def annotate_by_ray(job: Job, shards: Sequence[int], processes: int | None) -> Iterator[int]:
    """Annotate shares by tasks of one core each, on CUDA of one GPU, and give each when it is done, in any order.

    The cluster is the one that this process has joined or that ``RAY_ADDRESS`` names, else the one on this machine,
    else a new one on it. Ray begins a task anew whose process died.

    Args:
        job: what to do.
        shards: the shares.
        processes: how many tasks at once; None, one for every core of the cluster.

    Raises:
        RuntimeError: a task's processes die again and again.
        ImportError: ray is missing.
        Exception: what a task raises.
    """
    ray = import_optional("ray", "annotate: ray", "ray")
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    gpus = 1 if job.device.startswith("cuda") else 0
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=DEATHS)(_annotate)
    limit = processes or max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting = list(reversed(shards))
    running = [task.remote(job, waiting.pop()) for _ in range(min(limit, len(waiting)))]
    try:
        while running:
            done, running = ray.wait(running)
            for shard in map(ray.get, done):
                if waiting:
                    running.append(task.remote(job, waiting.pop()))
                yield shard
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise RuntimeError(f"annotate: ray: {' '.join(str(error).split())}") from error
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _annotate(job: Job, shard: int) -> int:
    use_one_thread()
    worker(job).annotate(shard)
    return shard
