import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream.errors import ConfigurationError, RunIdentityError
from stepstream.identity import JobIdentity, begun, detect, given_rank, normalise
from stepstream.process import ProcessId
from stepstream_schema.attempt import MAX_COUNT, Attempt

LAUNCHER = ProcessId(host="node-1", pid=17, start="4711", boot_id="b-1")
OTHER_NODES_LAUNCHER = ProcessId(host="node-2", pid=33, start="815", boot_id="b-2")
RUN_ID = "0123456789abcdef" * 2


def torchrun(rank: int, world_size: int, local_world_size: int | None = None, run_id: str = "none") -> dict[str, str]:
    """What torchrun leaves in a worker's environment."""
    local = world_size if local_world_size is None else local_world_size
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank % local),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(local),
        "TORCHELASTIC_RUN_ID": run_id,
        "TORCHELASTIC_RESTART_COUNT": "0",
    }


def srun(rank: int, tasks: int, job: str = "1000", step: str = "0") -> dict[str, str]:
    """What srun leaves in a task's environment."""
    return {
        "SLURM_JOB_ID": job,
        "SLURM_STEP_ID": step,
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank % 4),
        "SLURM_NTASKS": str(tasks),
    }


def mpirun(rank: int, size: int, local_size: int) -> dict[str, str]:
    """What Open MPI's mpirun leaves in a rank's environment."""
    return {
        "OMPI_COMM_WORLD_RANK": str(rank),
        "OMPI_COMM_WORLD_SIZE": str(size),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(rank % local_size),
        "OMPI_COMM_WORLD_LOCAL_SIZE": str(local_size),
    }


def deepspeed(rank: int, size: int) -> dict[str, str]:
    """What DeepSpeed's launcher leaves in a rank of a single node."""
    of_node = {"LOCAL_SIZE": str(size), "CROSS_RANK": "0", "CROSS_SIZE": "1"}
    return {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)} | of_node


def found(environ: dict[str, str], parent: ProcessId = LAUNCHER, **given: object) -> JobIdentity:
    return detect(environ, launcher=parent, **given)  # type: ignore[arg-type]


def test_a_process_on_its_own_has_no_rank_and_may_choose_its_run():
    assert found({}) == JobIdentity(run_id=None, rank=None, local_rank=None, world_size=1, attempt=Attempt())


@pytest.mark.parametrize(
    "environ",
    [torchrun(3, 8, 4, "job"), srun(3, 8), mpirun(3, 8, 8), {"PMI_RANK": "3", "PMI_SIZE": "8", "MPI_LOCALNRANKS": "8"}],
    ids=["torchrun", "srun", "mpirun", "mpich"],
)
def test_every_launcher_tells_the_rank_and_the_size(environ):
    identity = found(environ)
    assert (identity.rank, identity.world_size) == (3, 8)
    assert re.fullmatch(r"[0-9a-f]{32}", identity.run_id)


@pytest.mark.parametrize("environ", [torchrun(5, 8, 4, "job"), srun(5, 8), mpirun(5, 8, 4)])
def test_the_local_rank_is_told_too(environ):
    assert found(environ, run_id=RUN_ID).local_rank == 1


@pytest.mark.parametrize(
    "ranks",
    [
        [torchrun(rank, 4) for rank in range(4)],
        [torchrun(rank, 4, 2, "job-7") for rank in range(4)],
        [srun(rank, 4) for rank in range(4)],
        [mpirun(rank, 4, 4) for rank in range(4)],
        [deepspeed(rank, 4) for rank in range(4)],
    ],
    ids=["torchrun", "torchrun on two nodes", "srun", "mpirun", "deepspeed"],
)
@pytest.mark.parametrize("ordinal", [0, 1, 7])
def test_all_ranks_of_a_job_find_the_same_run(ranks, ordinal):
    assert len({found(environ, ordinal=ordinal).run_id for environ in ranks}) == 1


@pytest.mark.parametrize("environ", [srun(0, 4), torchrun(0, 4, 2, "job-7")], ids=["srun", "torchrun"])
def test_ranks_on_several_nodes_find_the_same_run_whoever_launched_them_there(environ):
    assert found(environ).run_id == found(environ, OTHER_NODES_LAUNCHER).run_id


@pytest.mark.parametrize(
    "other",
    [
        replace(LAUNCHER, pid=18),
        replace(LAUNCHER, start="4712"),
        replace(LAUNCHER, boot_id="b-2"),
        replace(LAUNCHER, host="node-2"),
    ],
    ids=["pid", "start", "boot", "host"],
)
def test_two_jobs_on_one_host_are_two_runs_though_torchrun_calls_both_none(other):
    assert found(torchrun(0, 4)).run_id != found(torchrun(0, 4), other).run_id


def test_jobs_and_steps_of_slurm_are_runs_of_their_own():
    runs = [found(srun(0, 4, job, step)).run_id for job in ("1", "2") for step in ("0", "1")]
    clusters = [found(srun(0, 4) | {"SLURM_CLUSTER_NAME": name}).run_id for name in ("a", "b")]
    assert len({*runs, *clusters}) == 6


@given(st.sets(st.integers(0, 1000), min_size=2, max_size=20))
def test_each_further_run_of_a_process_is_a_run_of_its_own(ordinals):
    assert len({found(torchrun(0, 2), ordinal=ordinal).run_id for ordinal in ordinals}) == len(ordinals)


def test_torchrun_under_srun_is_known_by_the_step_and_has_torchruns_ranks():
    """Slurm starts one torchrun a node, and its variables reach the workers."""
    nodes = [(srun(node, 2) | torchrun(node * 4 + local, 8, 4), node) for node in range(2) for local in range(4)]
    identities = [found(environ, replace(LAUNCHER, pid=100 + node)) for environ, node in nodes]
    assert len({identity.run_id for identity in identities}) == 1
    assert [identity.rank for identity in identities] == list(range(8))
    assert {identity.world_size for identity in identities} == {8}


def test_a_batch_scripts_own_process_is_no_rank():
    batch = {"SLURM_JOB_ID": "1000", "SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}
    assert found(batch) == JobIdentity(run_id=None, rank=None, local_rank=None, world_size=1, attempt=Attempt())


def test_two_torchruns_in_one_batch_script_are_two_runs():
    batch = {"SLURM_JOB_ID": "1000", "SLURM_PROCID": "0", "SLURM_NTASKS": "8"}
    first = found(batch | torchrun(0, 4), LAUNCHER)
    second = found(batch | torchrun(0, 4), replace(LAUNCHER, pid=18))
    assert first.run_id != second.run_id


def test_a_single_task_of_srun_is_a_process_on_its_own():
    assert found(srun(0, 1)).run_id is None
    assert found(srun(0, 1)).rank is None


@pytest.mark.parametrize(
    "environ",
    [torchrun(0, 8, 4), mpirun(0, 8, 4), {"RANK": "0", "WORLD_SIZE": "8"}],
    ids=["torchrun", "mpirun", "bare"],
)
def test_several_nodes_with_nothing_to_agree_on_are_told_what_to_set(environ):
    with pytest.raises(RunIdentityError, match="STEPSTREAM_RUN_ID"):
        found(environ)


@pytest.mark.parametrize("name", ["STEPSTREAM_RUN_ID", "MLFLOW_RUN_ID"])
def test_a_run_id_in_the_environment_is_everybodys_on_any_number_of_nodes(name):
    for environ in ({}, torchrun(0, 8, 4), srun(3, 8), mpirun(0, 8, 4)):
        assert found(environ | {name: RUN_ID}).run_id == RUN_ID


@pytest.mark.parametrize("name", ["STEPSTREAM_RUN_ID", "MLFLOW_RUN_ID"])
def test_a_run_id_in_the_environment_is_that_of_a_process_first_run(name):
    ids = [found({name: "ab" * 16}, ordinal=ordinal).run_id for ordinal in (0, 1, 2, 1)]
    assert ids[0] == "ab" * 16
    assert len(set(ids)) == 3
    # The second run of every rank is one, and what is named by an argument is meant each time.
    assert ids[1] == ids[3]
    assert found({name: "ab" * 16}, run_id="cd" * 16, ordinal=1).run_id == "cd" * 16


def test_an_argument_comes_before_our_variable_and_ours_before_mlflows():
    environ = {"STEPSTREAM_RUN_ID": "1" * 32, "MLFLOW_RUN_ID": "2" * 32}
    assert found(environ, run_id=RUN_ID).run_id == RUN_ID
    assert found(environ).run_id == "1" * 32
    assert found({"STEPSTREAM_RUN_ID": ""} | {"MLFLOW_RUN_ID": "2" * 32}).run_id == "2" * 32


@given(st.uuids())
def test_a_run_id_may_be_written_as_any_uuid(uuid):
    for text in (str(uuid), str(uuid).upper(), uuid.hex, f" {uuid}\n"):
        assert normalise(text) == uuid.hex


@pytest.mark.parametrize("text", ["run-7", "0" * 31, "0" * 33, "g" * 32, "٠" * 32, f"{RUN_ID} {RUN_ID}"])
def test_another_run_id_is_refused_by_the_name_of_who_gave_it(text):
    with pytest.raises(ConfigurationError, match=r"^run_id must be 32 hex digits"):
        found({}, run_id=text)
    for name in ("STEPSTREAM_RUN_ID", "MLFLOW_RUN_ID"):
        with pytest.raises(ConfigurationError, match=rf"^{name} must be 32 hex digits"):
            found({name: text})


def test_the_attempt_is_what_the_schedulers_counted():
    counts = {"SLURM_RESTART_COUNT": "1", "TORCHELASTIC_RESTART_COUNT": "2", "STEPSTREAM_RESUME": "3"}
    assert found(counts).attempt == Attempt(1, 2, 3)


def test_a_restart_is_another_attempt_of_the_same_run():
    first, again = found(torchrun(0, 4)), found(torchrun(0, 4) | {"TORCHELASTIC_RESTART_COUNT": "1"})
    assert first.run_id == again.run_id
    assert first.attempt < again.attempt
    requeued = found(srun(0, 4) | {"SLURM_RESTART_COUNT": "1"})
    assert requeued.run_id == found(srun(0, 4)).run_id
    assert requeued.attempt > again.attempt


@pytest.mark.parametrize("name", ["SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT", "STEPSTREAM_RESUME", "RANK"])
@pytest.mark.parametrize("text", ["-1", "one", "1.5", str(2**31)])
def test_a_number_that_cannot_be_meant_is_refused_by_name(name, text):
    with pytest.raises(ConfigurationError, match=name):
        found({name: text})


def test_the_largest_counts_are_taken():
    assert found({"STEPSTREAM_RESUME": str(MAX_COUNT)}).attempt.resume == MAX_COUNT
    assert found({"RANK": str(2**31 - 1)}).rank == 2**31 - 1


NAMES = [
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"),
    *("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_RESTART_COUNT", "SLURM_LOCALID"),
    *("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "PMI_RANK", "PMI_SIZE"),
    *("STEPSTREAM_RUN_ID", "MLFLOW_RUN_ID", "STEPSTREAM_RESUME"),
]
VALUES = st.sampled_from(["", "0", "1", "2", "8", "none", RUN_ID]) | st.text(max_size=5)


@given(st.dictionaries(st.sampled_from(NAMES), VALUES))
def test_any_environment_gives_an_identity_or_a_clear_refusal(environ):
    try:
        identity = found(environ)
    except ConfigurationError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert any(name in refusal for name in NAMES)
        return
    assert identity.run_id is None or re.fullmatch(r"[0-9a-f]{32}", identity.run_id)
    assert (identity.run_id is None) <= (identity.world_size <= 1)
    assert identity == found(environ)


@pytest.mark.parametrize("rank", [-1, 2**31, "0", 1.0, None])
def test_a_rank_that_no_frame_can_carry_is_refused(rank):
    with pytest.raises(ConfigurationError, match="rank must"):
        given_rank(rank)


def test_a_rank_may_be_any_whole_number():
    assert given_rank(np.int64(7)) == 7
    assert type(given_rank(True)) is int


def lightning(rank: int, size: int, node: str = "127.0.0.1") -> dict[str, str]:
    """What Lightning leaves in the script that it starts again, and in its own."""
    return {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(size), "MASTER_ADDR": node}


def test_scripts_that_lightning_starts_again_are_ranks_of_the_run_of_the_first():
    ranks = [found(lightning(rank, 3)) for rank in range(3)]
    assert [one.rank for one in ranks] == [0, 1, 2]
    assert len({one.run_id for one in ranks}) == 1
    assert found(lightning(1, 3), OTHER_NODES_LAUNCHER).run_id != ranks[0].run_id
    # The first script may have begun its run before there were any ranks.
    second = "ab" * 16
    told = begun(begun({}, LAUNCHER, RUN_ID), LAUNCHER, second)
    for rank in (0, 1):
        # After its first training Lightning takes the size away.
        for environ in (lightning(rank, 3) | told, {**lightning(rank, 3), "WORLD_SIZE": ""} | told):
            assert [found(environ, ordinal=ordinal).run_id for ordinal in (0, 1)] == [RUN_ID, second]
            assert found(environ).rank == rank
    later = {found(lightning(rank, 3) | told, ordinal=2).run_id for rank in (0, 1)}
    assert len(later) == 1
    assert later.isdisjoint({RUN_ID, second, ranks[0].run_id})
    # What another process has left there counts for none of these.
    assert found(lightning(1, 3) | begun(told, OTHER_NODES_LAUNCHER, RUN_ID)).run_id == ranks[0].run_id
    assert found(torchrun(0, 4) | told).run_id == found(torchrun(0, 4)).run_id
    with pytest.raises(RunIdentityError):
        found(lightning(1, 3, "node-1"))
