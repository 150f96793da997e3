import random

import numpy as np
import pytest
import torch

from course_utils import settings

FOUND = {
    "new CUDA": (True, True, False, "cuda", "bfloat16"),
    "old CUDA": (True, False, False, "cuda", "float16"),
    "Apple": (False, False, True, "mps", "float32"),
}


@pytest.fixture
def machine(monkeypatch):
    """A function that makes torch report CUDA, bfloat16 in CUDA's hardware, mps and the processor's flags."""

    def pretend(cuda=False, cuda_bf16=False, mps=False, flags=None):
        def bf16(including_emulation=True):
            return including_emulation or cuda_bf16

        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", bf16)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags or {}, raising=False)

    return pretend


@pytest.mark.parametrize("case", FOUND)
def test_accelerator_found_or_emulated_bfloat16_counted(machine, case):
    cuda, cuda_bf16, mps, device, precision = FOUND[case]
    machine(cuda, cuda_bf16, mps)
    assert settings.device().type == device
    assert settings.precision() == precision


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": True, "avx512_bf16": False}, "bfloat16"),
        ({"avx512_bf16": False, "amx_bf16": False}, "float32"),
        ({"avx512_f": True}, "float32"),
        ({}, "float32"),
    ],
)
def test_processor_flag_read_by_value_not_by_key(machine, flags, expected):
    machine(flags=flags)
    assert (settings.device().type, settings.precision()) == ("cpu", expected)


def test_torch_without_get_capabilities_falls_back_to_float32(machine, monkeypatch):
    machine()
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    monkeypatch.setattr(settings.platform, "processor", lambda: "")
    assert settings.precision() == "float32"
    assert "unknown processor" in settings.processor()


def test_explicit_precision_kept_and_a_typo_refused(machine):
    machine(flags={"avx512_bf16": True})
    assert [settings.precision(name) for name in settings.PRECISIONS] == ["float32", "bfloat16", "float16"]
    with pytest.raises(ValueError, match="'half'.*expected 'auto' or one of float32") as error:
        settings.precision("half")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_autocast_computes_in_the_named_precision(machine, name, dtype):
    machine()
    with settings.autocast(name):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_long_recipes_taken_unasked_on_a_graphics_card(machine, monkeypatch):
    for name in ("smoke", "cpu", "full"):
        monkeypatch.setenv("COURSE_PROFILE", name)
        assert settings.profile() == name
    monkeypatch.delenv("COURSE_PROFILE")
    machine(cuda=True)
    assert settings.profile() == "cpu"
    monkeypatch.setenv("COURSE_PROFILE", "fast")
    with pytest.raises(ValueError, match="'fast'; expected one of smoke, cpu, full") as error:
        settings.profile()
    assert "\n" not in str(error.value)


def test_runs_and_cache_follow_variable_checkout_and_working_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("COURSE_RUNS", "~/a")
    monkeypatch.setenv("COURSE_CACHE", "~/b")
    assert (settings.runs(), settings.cache()) == (tmp_path / "a", tmp_path / "b")
    monkeypatch.delenv("COURSE_RUNS")
    monkeypatch.delenv("COURSE_CACHE")
    assert settings.cache().name == "deep-dive-into-cnns"
    monkeypatch.setattr(settings, "checkout", lambda: tmp_path / "c")
    assert settings.runs() == tmp_path / "c" / "runs"
    monkeypatch.setattr(settings, "checkout", lambda: None)
    monkeypatch.chdir(tmp_path)
    assert settings.runs() == tmp_path / "runs"


def test_a_course_folder_that_may_not_be_written_is_written_or_silently_replaced(
    monkeypatch, tmp_path, capsys
):
    (tmp_path / "teacher").mkdir()
    monkeypatch.delenv("COURSE_RUNS")
    monkeypatch.setattr(settings, "checkout", lambda: tmp_path / "teacher")
    monkeypatch.setattr(settings.platformdirs, "user_data_dir", lambda name: str(tmp_path / "own" / name))
    monkeypatch.setattr(
        settings.os, "access", lambda place, mode: tmp_path / "teacher" not in (place, *place.parents)
    )
    own = tmp_path / "own/deep-dive-into-cnns/runs"
    assert settings.runs() == settings.runs() == own
    assert (
        capsys.readouterr().out
        == f"{tmp_path}/teacher/runs may not be written; {own} is used in its place.\n"
    )


def test_a_file_appears_half_written_or_leaves_a_part_behind(tmp_path):
    file = tmp_path / "new" / "a.txt"
    with settings.whole(file) as part:
        part.write_text("one")
        assert not file.exists()
    with pytest.raises(OSError), settings.whole(file) as part:
        part.write_text("tw")
        raise OSError("disk full")
    assert file.read_text() == "one" and list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("wanted", ["cpu", "mps", "cuda"])
def test_the_readers_choice_of_device_is_ignored(machine, monkeypatch, wanted):
    machine(cuda=True, mps=True)
    monkeypatch.setenv("COURSE_DEVICE", wanted)
    assert settings.device().type == wanted


def test_a_device_that_is_not_here_is_chosen(machine, monkeypatch):
    machine(mps=True)
    for name in ("cuda", "tpu"):
        monkeypatch.setenv("COURSE_DEVICE", name)
        with pytest.raises(ValueError, match=f"COURSE_DEVICE is '{name}'; expected one of mps, cpu") as error:
            settings.device()
        assert "\n" not in str(error.value)


def test_two_processors_of_one_name_are_told_apart(machine):
    flags = {"cpu_name": "AMD EPYC"}
    machine(flags=flags | {"avx512_bf16": True, "amx_bf16": False})
    assert settings.processor() == "AMD EPYC (avx512_bf16)"
    machine(flags=flags)
    assert settings.processor() == "AMD EPYC (float32)"


def test_checkout_needs_both_pyproject_and_data(monkeypatch, tmp_path):
    monkeypatch.setattr(settings, "__file__", str(tmp_path / "course_utils" / "settings.py"))
    assert settings.checkout() is None
    (tmp_path / "pyproject.toml").touch()
    assert settings.checkout() is None
    (tmp_path / "data").mkdir()
    assert settings.checkout() == tmp_path.resolve()


def test_seed_all_leaves_a_generator_unseeded():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    settings.seed_all(3)
    first = draw()
    second = draw()
    settings.seed_all(3)
    assert draw() == first
    assert all(a != b for a, b in zip(first, second, strict=True))
