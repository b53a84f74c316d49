"""The public names and where they live: the one list of them, for type checkers and for `__init__.py`."""

from specdef.analysis.curvature.measure import CurvatureReport as CurvatureReport
from specdef.analysis.curvature.measure import measure_curvature as measure_curvature
from specdef.analysis.inspect import InspectReport as InspectReport
from specdef.analysis.inspect import inspect_model as inspect_model
from specdef.attacks.base import Intervention as Intervention
from specdef.attacks.base import RewriteReport as RewriteReport
from specdef.attacks.base import parse_intervention as parse_intervention
from specdef.certify.api import attack as attack
from specdef.certify.api import certify_model as certify_model
from specdef.certify.api import undo as undo
from specdef.certify.certificate import Certificate as Certificate
from specdef.certify.certificate_file import read_certificate as read_certificate
from specdef.certify.multiplier_search import find_multiplier as find_multiplier
from specdef.certify.resources import Resources as Resources
from specdef.certify.result import StoredCell as StoredCell
from specdef.certify.store import stored_cells as stored_cells
from specdef.certify.study_results import StudyResults as StudyResults
from specdef.certify.study_run import run_study as run_study
from specdef.defences.defend import defend as defend
from specdef.errors import SpecdefError as SpecdefError
from specdef.integrations.signing.sign import SignatureReport as SignatureReport
from specdef.integrations.signing.sign import SignReport as SignReport
from specdef.integrations.signing.sign import sign as sign
from specdef.integrations.signing.sign import verify_signature as verify_signature
from specdef.integrations.trainer import TaskCallback as TaskCallback
from specdef.integrations.trainer import TrainerReport as TrainerReport
from specdef.locks.base import ModuleKey as ModuleKey
from specdef.locks.base import ModuleLock as ModuleLock
from specdef.locks.in_memory import lock_module as lock_module
from specdef.locks.in_memory import unlock_module as unlock_module
from specdef.locks.lock import LockReport as LockReport
from specdef.locks.lock import lock as lock
from specdef.locks.unlock import unlock as unlock
from specdef.locks.verify import VerifyReport as VerifyReport
from specdef.locks.verify import verify as verify
from specdef.models.bundled import fetch as fetch
from specdef.report.compare import write_comparison as write_comparison
from specdef.report.study import write_study as write_study
from specdef.report.write import write_report as write_report
from specdef.tasks.base import Task as Task
from specdef.tasks.base import TaskSpec as TaskSpec
from specdef.training.outcome import Evaluation as Evaluation
from specdef.training.outcome import Outcome as Outcome
from specdef.training.recipe import Recipe as Recipe

__version__: str
