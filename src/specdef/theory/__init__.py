"""The papers' theorems as functions: what a lock guarantees about curvature, and what it does not.

Everything is float64, batched over leading axes and differentiable where singular values are distinct.
"""

from specdef.theory.activations import ACTIVATIONS, Activation, ActivationName, find_activation
from specdef.theory.angles import principal_angle_cosine
from specdef.theory.bounds import Form, hessian_lower_bound, product_lower_bound, triple_lower_bound
from specdef.theory.classical import (
    poincare_bounds,
    sum_lower_bound,
    two_layer_loss_bound,
    weyl_product_lower_bound,
    weyl_product_upper_bound,
    weyl_sum_lower_bound,
    weyl_sum_upper_bound,
)
from specdef.theory.complexity import (
    gradient_descent_iterations,
    muon_iterations,
    muon_step,
    nesterov_iterations,
    newton_iterations,
    newton_radius,
    newton_step_bound,
)
from specdef.theory.composite_bounds import composite_lower_bound, composite_upper_bound, inflation_margin
from specdef.theory.hessian_blocks import (
    HessianBlock,
    attention_block,
    attention_head_block,
    cnn_block,
    compensation_block,
    mlp_block,
    toeplitz,
)
from specdef.theory.ladder import beyond_bias, effective_rates, highest_rate, reachable, starved
from specdef.theory.requirements import TheoryError
from specdef.theory.tensor_bounds import (
    tensor_angle_lower_bound,
    tensor_lipschitz_upper_bound,
    tensor_poincare_bounds,
    tensor_product_lower_bound,
    tensor_product_upper_bound,
    tensor_sum_upper_bound,
)
from specdef.theory.third_derivative import ThirdDerivative, mlp_third_derivative
from specdef.theory.tsvd import t_product, t_svd, t_transpose, tensor_singular_values
from specdef.theory.upper import block_sum_upper_bound, kronecker_upper_bound, outer_product_upper_bound

__all__ = [  # noqa: RUF022 - grouped by theorem
    # angles and the paper's bounds
    "principal_angle_cosine",
    "product_lower_bound",
    "triple_lower_bound",
    "hessian_lower_bound",
    "Form",
    # classical bounds
    "poincare_bounds",
    "weyl_sum_upper_bound",
    "weyl_sum_lower_bound",
    "weyl_product_upper_bound",
    "weyl_product_lower_bound",
    "sum_lower_bound",
    "two_layer_loss_bound",
    # upper bounds
    "outer_product_upper_bound",
    "kronecker_upper_bound",
    "block_sum_upper_bound",
    # iteration complexity
    "gradient_descent_iterations",
    "nesterov_iterations",
    "newton_radius",
    "newton_step_bound",
    "newton_iterations",
    "muon_iterations",
    "muon_step",
    # what one learning rate reaches on a ladder
    "effective_rates",
    "beyond_bias",
    "highest_rate",
    "reachable",
    "starved",
    # analytic Hessian blocks
    "mlp_block",
    "compensation_block",
    "cnn_block",
    "toeplitz",
    "attention_block",
    "attention_head_block",
    "HessianBlock",
    # third derivatives
    "t_product",
    "t_transpose",
    "t_svd",
    "tensor_singular_values",
    "tensor_lipschitz_upper_bound",
    "tensor_poincare_bounds",
    "tensor_sum_upper_bound",
    "tensor_product_upper_bound",
    "tensor_product_lower_bound",
    "tensor_angle_lower_bound",
    "composite_upper_bound",
    "composite_lower_bound",
    "inflation_margin",
    "mlp_third_derivative",
    "ThirdDerivative",
    # activations and failures
    "ACTIVATIONS",
    "Activation",
    "ActivationName",
    "find_activation",
    "TheoryError",
]
