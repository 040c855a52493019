"""Decides which foreign names would run something if Python loaded a pickle with them.

Our own reader (unpickle.py) calls none of them. It refuses a file with such a name, because no
weight file needs one: the file is an attack or holds a program. Any other name is an unknown class
or function, and its objects become inert records. These names are refused:

1. Python's own modules: every name that is not listed here as plain data. This covers all modules
   that execute, load code or touch files, processes or the network.
2. Packages that run, load or fetch something, and such parts of NumPy and PyTorch.
3. Other packages: functions whose name says that they run, load, open, write or delete something.
4. Any name with dots that passes through a module, a special method or a hidden attribute, such as
   `random._os.system`.
"""

import re
import sys
from collections.abc import Mapping


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Modules of Python whose classes (names with a capital) are plain data.
_DATA_MODULES = _words("""
    __future__ _collections_abc _datetime _decimal _pydecimal abc argparse calendar collections
    collections.abc configparser copyreg datetime decimal enum exceptions fractions functools
    inspect ipaddress json.decoder json.encoder numbers pathlib pathlib._local queue random re
    statistics string struct textwrap types typing uuid warnings zoneinfo
""")
# Exceptions among these classes: they open files, make code or give access to any attribute.
_RUNNING_CLASSES = _words("""
    CodeType FileType ForwardRef Formatter FunctionType LambdaType SystemRandom
""")
# Further names in Python's modules that are plain data.
_DATA_NAMES: Mapping[str, frozenset[str]] = {
    "_codecs": _words("decode encode"),
    "_collections": _words("OrderedDict defaultdict deque"),
    "_io": _words("BytesIO StringIO"),
    "_operator": _words("itemgetter"),
    "_random": _words("Random"),
    "_struct": _words("Struct"),
    "_thread": _words("RLock lock"),
    "_weakref": _words("ref"),
    "array": _words("_array_reconstructor array"),
    "base64": _words("b64decode"),
    "binascii": _words("a2b_base64"),
    "builtins": _words("""
        Ellipsis NotImplemented bool bytearray bytes complex dict float frozenset int list long
        object range set slice str tuple type unicode xrange
    """),
    "codecs": _words("decode encode"),
    "collections": _words("defaultdict deque"),
    "copyreg": _words("__newobj__ __newobj_ex__ _reconstructor"),
    "dataclasses": _words("Field _MISSING_TYPE"),
    "datetime": _words("date datetime time timedelta timezone"),
    "enum": _words("auto"),
    "functools": _words("partial"),
    "http": _words("HTTPStatus"),
    "inspect": _words("_ParameterKind _empty"),
    "io": _words("BytesIO StringIO"),
    "itertools": _words("chain count cycle islice product repeat"),
    "logging": _words("Formatter Logger getLogger"),
    "operator": _words("itemgetter"),
    "os": _words("stat_result terminal_size"),
    "platform": _words("uname_result"),
    "re": _words("_compile compile"),
    "time": _words("struct_time"),
    "weakref": _words("WeakKeyDictionary WeakSet WeakValueDictionary ref"),
    "xml.etree.ElementTree": _words("Element"),
    "zlib": _words("decompress"),
}
_EXCEPTION = re.compile(r"[A-Z]\w*(Error|Exception|Exit|Interrupt|Iteration|Warning)")

# Names of such modules in Python 2, and modules that only older versions of Python have.
_OLD_NAMES = {"__builtin__": "builtins", "copy_reg": "copyreg", "cPickle": "pickle"}
_FORMER_MODULES = _words("""
    Bastion asynchat asyncore cgi commands crypt dl distutils httplib ihooks imp imputil new nntplib
    pipes popen2 rexec smtpd telnetlib thread urllib2 uu
""")
# Modules of Python whose names no package uses for its own parts.
_UNMISTAKABLE = _words("""
    __builtin__ builtins ctypes importlib marshal nt os pickle posix pty runpy shutil socket
    subprocess sys
""")

_RUNNING_PACKAGES = _words("""
    IPython _pytest aiohttp boto3 cffi cloudpickle dill docker execnet fabric fsspec gdown httpx
    invoke ipykernel nose paramiko pexpect pip pkg_resources plumbum ptyprocess pycurl pytest
    requests setuptools sh urllib3 websocket websockets wget win32api win32com
""")
_RUNNING_PARTS = _words("""
    numpy.DataSource numpy.ctypeslib numpy.distutils numpy.f2py numpy.lib._datasource
    numpy.lib.npyio numpy.testing pandas.io scipy.io scipy.weave torch._C.CompilationUnit
    torch._C.PyTorchFileReader torch._C.PyTorchFileWriter torch._classes torch._dynamo torch._export
    torch._inductor torch._jit_internal torch._ops torch.classes torch.distributed.elastic
    torch.distributed.launch torch.distributed.launcher torch.distributed.rpc torch.distributed.run
    torch.export torch.fx torch.hub torch.jit torch.library torch.multiprocessing torch.onnx
    torch.ops torch.package torch.serialization torch.storage._load_from_bytes torch.testing
    torch.utils._config_module torch.utils.bottleneck torch.utils.collect_env
    torch.utils.cpp_extension torch.utils.data.datapipes torch.utils.hipify torch.utils.model_zoo
    torch.utils.show_pickle torch.utils.tensorboard torchvision.datasets.utils
""")
_DATA_PARTS = _words("torch.serialization._get_layout")
_VERBS = _words("""
    apply builtins call chmod compile delattr dump dumps eval exit from_file from_pretrained
    fromfile frompyfunc genfromtxt getattr getattribute getoutput getstatusoutput globals import
    invoke kill literal_eval load loads loadtxt locals locate main memmap my_eval myeval open popen
    read_pickle remove removedirs rename rmdir rmtree run runcode runcommand runscript runsource
    runstring safe_eval save savetxt savez savez_compressed setattr sympify system to_file tofile
    unlink urlopen urlretrieve vars vectorize write
""")
_BEGINNINGS = (
    *("apply_", "call_", "check_call", "check_output", "compile_", "download", "eval_", "exec"),
    *("fetch", "get_obj", "import_", "instantiate", "load_", "open_", "run_", "save_", "shell"),
    *("spawn", "unpickle", "write_"),
)


def runs_things(module: str, name: str) -> bool:
    """Whether the name would execute or load code, or touch files, processes or the network.

    module, name: as in the pickle; the name may have dots.
    """
    root, *inner = module.split(".")
    root = _OLD_NAMES.get(root, root)
    way = name.split(".")
    full = [root, *inner, *way]
    if root in sys.stdlib_module_names or root == "exceptions":
        return not _is_data_of_python(".".join(full[: -len(way)]), name)
    if root in _FORMER_MODULES or root in _RUNNING_PACKAGES or _UNMISTAKABLE.intersection(full):
        return True
    if _leads_through(_DATA_PARTS, full):
        return False
    return (
        _leads_through(_RUNNING_PARTS, full)
        or any(part.lstrip("_") in sys.stdlib_module_names for part in way[:-1])
        or any(map(_says_that_it_runs, way))
    )


def _leads_through(parts: frozenset[str], full: list[str]) -> bool:
    """Whether the full name is one of the parts, or lies inside one."""
    return any(".".join(full[:count]) in parts for count in range(2, len(full) + 1))


def _says_that_it_runs(part: str) -> bool:
    if part.startswith("__") and part.endswith("__"):
        return True
    word = part.strip("_")
    return word in _VERBS or word.startswith(_BEGINNINGS)


def _is_data_of_python(module: str, name: str) -> bool:
    if name in _DATA_NAMES.get(module, ()):
        return True
    if module == "builtins":
        return _EXCEPTION.fullmatch(name) is not None or name == "Exception"
    is_class = "." not in name and name[:1].isupper() and name not in _RUNNING_CLASSES
    return module in _DATA_MODULES and is_class
