"""One thread for tiny work, and always the old number afterwards."""

import pytest
import torch

from glassgpt.models.threads import WORTH_SHARING, threads_for


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_tiny_work_gets_one_thread_and_large_work_all(two_threads):
    with threads_for(WORTH_SHARING - 1):
        assert torch.get_num_threads() == 1
        with threads_for(1):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with threads_for(WORTH_SHARING):
        assert torch.get_num_threads() == 2


def test_an_error_inside_restores_the_number_too(two_threads):
    with pytest.raises(KeyError), threads_for(1):
        raise KeyError
    assert torch.get_num_threads() == 2
