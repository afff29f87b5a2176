"""Threads in which torch uses one core each."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import torch


def single_core_workers(threads: int, name: str, nice: int = 0) -> ThreadPoolExecutor:
    """Threads in which torch uses one core; in all others it goes on using as many as before.

    On Linux `nice` threads give way to others, within this process too.

    torch.set_num_threads sets the calling thread's number and the default of threads yet to come,
    so the default is put back once the workers have theirs. A thread takes the default over when
    it first asks for its number, also after its own was set; so it asks first.
    """
    before = torch.get_num_threads()
    everyone = threading.Barrier(threads)

    def begin(_: int) -> None:
        torch.get_num_threads()
        torch.set_num_threads(1)
        if nice and sys.platform == "linux":  # elsewhere a number stands for the whole process
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
        everyone.wait()

    executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
    list(executor.map(begin, range(threads)))
    torch.set_num_threads(before)
    return executor
