"""Names of functions that execute code are told from names of data and of unknown classes."""

import pytest

from tools.convert_weights.readers.foreign_names import runs_things

RUNNING = """
os.system posix.system nt.system os.popen os.remove os.path.join subprocess.Popen pty.spawn
builtins.eval builtins.exec builtins.compile builtins.open builtins.getattr builtins.__import__
builtins.map builtins.print __builtin__.eval __builtin__.apply sys.exit sys.modules
runpy.run_path importlib.import_module ctypes.CDLL code.interact timeit.timeit bdb.Bdb
pickle.loads _pickle.loads cPickle.loads marshal.loads shelve.open copyreg.add_extension
io.open _io.FileIO shutil.rmtree tempfile.mktemp zipfile.ZipFile logging.FileHandler
argparse.FileType socket.socket http.client.HTTPSConnection urllib.request.urlopen
webbrowser.open asyncio.run multiprocessing.Process threading.Thread signal.signal
functools.reduce operator.attrgetter operator.methodcaller types.FunctionType types.CodeType
collections.namedtuple weakref.finalize commands.getoutput popen2.popen3
torch.load torch.hub.load torch.jit.load torch.fx.graph_module.reduce_graph_module
torch.utils.collect_env.run torch.serialization.load torch.storage._load_from_bytes
numpy.load numpy.memmap numpy.f2py.crackfortran.getlincoef numpy.ctypeslib.load_library
numpy.testing._private.utils.runstring pandas.read_pickle joblib.load dill.loads
cloudpickle.cloudpickle._make_function pip.main pip._internal.main setuptools.setup
dnnlib.util.open_url dnnlib.util.call_func_by_name six.moves.builtins six.moves.getoutput
mylib.os mylib.subprocess.Popen mylib.tools.run_command mylib.__builtins__ mylib.download_weights
"""

DATA = """
pathlib.PosixPath pathlib.PurePosixPath pathlib.WindowsPath pathlib._local.PosixPath
datetime.datetime datetime.timedelta collections.deque collections.UserDict builtins.list
builtins.type builtins.slice builtins.ValueError exceptions.ValueError enum.Enum re._compile
uuid.UUID decimal.Decimal functools.partial types.SimpleNamespace typing.Any random.Random
copyreg._reconstructor copy_reg._reconstructor argparse.Namespace array._array_reconstructor
torch.nn.modules.conv.Conv2d torch.nn.modules.module.Module torch.optim.adam.Adam
torch.optim.lr_scheduler.LambdaLR torch.nn.functional.leaky_relu torch.torch_version.TorchVersion
torch.nn.utils.weight_norm.WeightNorm torch.distributions.normal.Normal torch._C.Generator
torch.serialization._get_layout torchvision.models.resnet.ResNet numpy.matrix
numpy.random._pickle.__randomstate_ctor numpy.random.mtrand.RandomState numpy.ma.core.MaskedArray
omegaconf.dictconfig.DictConfig easydict.EasyDict timm.models.efficientnet.EfficientNet
transformers.training_args.TrainingArguments __main__.Options training.networks.Generator
pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint pg_modules.projector.Proj
"""

# Names with dots, which only STACK_GLOBAL can ask for.
RUNNING_BELOW = [
    ("random", "_os.system"),
    ("pathlib", "Path.unlink"),
    ("datetime", "sys.modules"),
    ("torch", "serialization.os.system"),
    ("torch", "FloatStorage.from_file"),
    ("numpy", "f2py.crackfortran.myeval"),
    ("mylib", "os.system"),
    ("mylib", "Class.__init__.__globals__"),
    ("mylib", "types.CodeType"),
]


@pytest.mark.parametrize("full", RUNNING.split())
def test_name_that_runs_things_is_told(full: str) -> None:
    """Modules and functions that execute code, load code, or use files or the network."""
    module, _, name = full.rpartition(".")
    assert runs_things(module, name)


@pytest.mark.parametrize(("module", "name"), RUNNING_BELOW)
def test_way_through_an_attribute_is_told(module: str, name: str) -> None:
    """A dangerous module is recognised below a harmless one, too."""
    assert runs_things(module, name)


@pytest.mark.parametrize("full", DATA.split())
def test_name_of_data_is_no_danger(full: str) -> None:
    """Plain types, classes of networks and unknown classes are harmless."""
    module, _, name = full.rpartition(".")
    assert not runs_things(module, name)


def test_class_inside_a_class_is_no_danger() -> None:
    """Its name has a dot as well."""
    assert not runs_things("mylib.options", "Outer.Inner")
