"""The commands that send jobs to a Ray cluster and look after them."""

from __future__ import annotations

from typing import Annotated

import typer

from tapray.options import Force, Out, Progress, Study, reporter

jobs = typer.Typer(help="Jobs on a Ray cluster.", no_args_is_help=True)

_ADDRESS = "http://127.0.0.1:8265"
Address = Annotated[str, typer.Option(envvar="RAY_API_SERVER_ADDRESS", help="The cluster's dashboard.")]
JobName = Annotated[str, typer.Argument(help="Name of the job, as submit and jobs list tell it.")]


def submit(
    study: Study,
    address: Address = _ADDRESS,
    out: Out = None,
    force: Force = None,
    detach: Annotated[bool, typer.Option("--detach", help="Send it and leave.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Send it again whenever the job or the cluster dies.")
    ] = False,
    progress: Progress = "rich",
) -> None:
    """The whole job on a Ray cluster; continues where it was interrupted."""
    from tapray.distributed.jobs import Cluster
    from tapray.distributed.submission import see_through
    from tapray.sending import sent_study

    variants, folder = sent_study(study, out)
    told = reporter(progress)
    if detach:
        name = Cluster(address).submit(variants, folder, force or [])
        told.say(f"job {name}; follow it with: tapray jobs logs {name} --follow")
    else:
        see_through(address, variants, folder, force or [], told, wait=wait)


@jobs.command("list")
def jobs_list(address: Address = _ADDRESS, progress: Progress = "rich") -> None:
    """The cluster's tapray jobs, the latest first."""
    from rich.markup import escape
    from rich.table import Table

    from tapray.distributed.jobs import Cluster, row

    table = Table("job", "status", "started", "run folder", "message")
    for details in Cluster(address).jobs():
        table.add_row(*map(escape, row(details)))
    reporter(progress).table(table)


@jobs.command("status")
def jobs_status(job: JobName, address: Address = _ADDRESS) -> None:
    """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
    from tapray.distributed.jobs import Cluster

    print(Cluster(address).details(job).status.value)


@jobs.command("logs")
def jobs_logs(
    job: JobName,
    address: Address = _ADDRESS,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the job ends.")] = False,
    progress: Progress = "rich",
) -> None:
    """What a job has told so far."""
    from tapray.distributed.jobs import Cluster

    Cluster(address).show(job, reporter(progress), follow=follow)


@jobs.command("stop")
def jobs_stop(job: JobName, address: Address = _ADDRESS) -> None:
    """Ends a job; submitted again, it continues."""
    from tapray.distributed.jobs import Cluster

    Cluster(address).stop(job)
