"""Jobs run one after the other in processes of their own, and nothing that ends them loses one."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from spf_lora.errors import SpfError
from spf_lora.studio import jobs

HOLDER = """
import sys, time
from pathlib import Path
from spf_lora.locks import held_alone
with held_alone(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    time.sleep(600)
"""
PATIENCE = 600  # seconds, for a busy machine


def wait_for(job, *states):
    end = time.monotonic() + PATIENCE
    while (state := job.state()) not in states:
        assert time.monotonic() < end, (state, job.lines())
        time.sleep(0.05)
    return state


def test_jobs_run_in_the_order_they_came_each_with_its_result_and_talk():
    first = jobs.submit("first", ["attributes", "--json"])
    second = jobs.submit("second", ["attributes", "--nonsense"])
    assert wait_for(second, "done", "failed") == "failed"
    assert first.state() == "done"
    assert '"trainable"' in first.result()
    assert any("nonsense" in line for line in second.lines())
    assert [job.title for job in jobs.jobs()] == ["first", "second"]


def test_a_job_whose_process_was_killed_is_interrupted_and_can_go_on(unstarted):
    job = jobs.submit("train", ["train", "--attribute", "beard"])
    (job.folder / "started").touch()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, job.folder / "lock"], stdout=subprocess.PIPE
    )
    assert holder.stdout.readline() == b"held\n"
    assert job.state() == "running"
    holder.kill()
    holder.wait()
    assert job.state() == "interrupted"
    jobs.resume(job)
    again = jobs.find(job.id)
    assert again.state() == "waiting"
    assert again.words == ("train", "--attribute", "beard", "--resume")


def test_a_job_that_waits_can_be_taken_back_and_one_that_waits_cannot_be_resumed(unstarted):
    job = jobs.submit("one", ["attributes"])
    with pytest.raises(SpfError, match="one is waiting"):
        jobs.resume(job)
    jobs.stop(job)
    assert job.state() == "stopped"
    assert jobs.next_waiting() is None
    jobs.resume(job)
    assert jobs.next_waiting() == job


def test_jobs_that_wait_while_none_runs_are_taken_up_again_but_not_at_every_look(monkeypatch):
    started = []
    monkeypatch.setattr(jobs, "start_worker", lambda: started.append(1))
    monkeypatch.setattr(jobs, "_started_at", [-1000.0])
    jobs.wake(["waiting", "running"])
    jobs.wake(["done", "interrupted"])
    assert not started
    jobs.wake(["waiting"])
    assert started == [1]
    monkeypatch.setattr(jobs, "_started_at", [time.monotonic()])
    jobs.wake(["waiting"])
    assert started == [1]


@pytest.mark.parametrize("name", ["../..", "/etc", "", "0" * 29, "../jobs"])
def test_an_id_is_never_a_path(name, unstarted):
    jobs.submit("one", ["attributes"])
    with pytest.raises(SpfError, match="no such job"):
        jobs.find(name)


def test_what_a_job_writes_changes_its_stamp(unstarted):
    job = jobs.submit("train", ["train"])
    before = job.stamp()
    assert job.stamp() == before
    (job.folder / "adapter-samples").mkdir()
    (job.folder / "adapter-samples" / "000050.png").touch()
    assert job.stamp() != before


def test_a_damaged_job_is_left_out(studio, unstarted):
    job = jobs.submit("one", ["attributes"])
    (job.folder / "job.json").write_text("[" * 1000)
    assert jobs.jobs() == []


def test_progress_and_losses_are_read_from_the_log(unstarted):
    job = jobs.submit("train", ["train"])
    lines = (
        "learn ...",
        "learn 10/250, 3 s, 72 s left, loss 0.2500",
        "learn 20/250, 6 s, 69 s left, loss 0.1250",
        "beard: 16/64 pictures, 5 s left",
    )
    (job.folder / "log").write_text("\n".join(lines))
    assert job.losses() == {"learn": [(10, 0.25), (20, 0.125)]}
    assert job.progress() == ("beard pictures, 5 s left", 16, 64)


@pytest.mark.slow
def test_a_training_that_is_stopped_goes_on_to_the_same_file(tmp_path):
    changes = ("learn.steps=60", "distil.steps=0", "data.count=8", "data.vocabulary=none")
    changes += ("data.batch_size=2", "training.checkpoint_every_steps=1")
    words = ["train", "--attribute", "beard", *(f"--set={change}" for change in changes)]
    whole = jobs.submit("whole", [*words, "--out", str(tmp_path / "whole.safetensors")])
    wait_for(whole, "done")
    cut = jobs.submit("cut", [*words, "--out", str(tmp_path / "cut.safetensors")])
    end = time.monotonic() + PATIENCE
    while not (cut.losses() or cut.state() == "done"):
        assert time.monotonic() < end
        time.sleep(0.1)
    jobs.stop(cut)
    if wait_for(cut, "stopped", "done") == "stopped":
        jobs.resume(cut)
        wait_for(jobs.find(cut.id), "done")
    assert Path("cut.safetensors").read_bytes() == Path("whole.safetensors").read_bytes()


def test_a_running_job_ends_politely_when_it_is_asked():
    job = jobs.submit("train", ["train", "--attribute", "beard"])
    wait_for(job, "running")
    jobs.stop(job)
    wait_for(job, "stopped")
    lock, end = job.folder.parent.parent / "worker.lock", time.monotonic() + PATIENCE
    while lock.exists():  # the end is written while it is held
        assert time.monotonic() < end
        time.sleep(0.05)
