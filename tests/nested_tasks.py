"""A program that segments inside tasks of Dask workers, where no other thread is free."""

import sys
from pathlib import Path

from resume_tools import make_small, segmented

TASKS = 3


def count_classes(path, _folder, _number):
    return segmented(path).table.tobytes()


def compute_classes(path, _folder, _number):
    return segmented(path).classes.compute().tobytes()


def compute_regions(path, _folder, _number):
    return segmented(path).compute(["regions"])["regions"].tobytes()


def export_store(path, folder, number):
    output = Path(folder) / f"{number}.ome.zarr"
    segmented(path).export(output, ["classes", "regions", "recolored"])
    return [file.read_bytes() for file in sorted(output.rglob("c/**/*")) if file.is_file()]


def export_picture(path, folder, number):
    output = Path(folder) / f"{number}.tif"
    segmented(path).export(output, ["recolored"])
    return output.read_bytes()


def count_after_seceding(path, folder, number):
    """Nobody waits for the thread of this task, so its tiles may go to the cluster."""
    from distributed import worker_client

    with worker_client():
        return count_classes(path, folder, number)


WORK = (
    count_classes,
    compute_classes,
    compute_regions,
    export_store,
    export_picture,
    count_after_seceding,
)


def main(processes, path, folder):
    from distributed import Client, LocalCluster

    make_small()
    expected = {}
    for work in WORK[:-1]:
        (Path(folder) / "here").mkdir(exist_ok=True)
        expected[work] = work(path, Path(folder) / "here", work.__name__)
    expected[WORK[-1]] = expected[count_classes]
    cluster = LocalCluster(
        n_workers=1, threads_per_worker=1, processes=processes, dashboard_address=None
    )
    with cluster, Client(cluster) as client:
        client.run(make_small)
        for work in WORK:
            there = Path(folder) / work.__name__
            there.mkdir()
            numbers = range(TASKS)
            futures = client.map(work, [path] * TASKS, [str(there)] * TASKS, numbers, pure=False)
            assert client.gather(futures) == [expected[work]] * TASKS, work.__name__
    sys.stdout.write("done\n")


if __name__ == "__main__":
    main(sys.argv[1] == "processes", sys.argv[2], sys.argv[3])
