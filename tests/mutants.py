"""One-line bugs, and the test that has to notice each of them.

``examine`` runs tests on a copy of lnn_core, whole or with one bug. ``apart`` does so in a process of
its own, forked from a server that has imported what lnn_core and its tests import, but not lnn_core.
"""

from __future__ import annotations

import gc
import importlib.util
import io
import multiprocessing
import os
import shutil
import signal
import sys
from contextlib import redirect_stdout, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import Phase, settings

ROOT = Path(__file__).resolve().parents[1]
SUPPORT = ("browsing.py", "colours.py", "conftest.py", "controls.py", "drawing.py", "javascript.py",
           "lrrn_reference.py", "page_stub.js", "reference.py", "strategies.py", "test_drawing.py")


class Mutant(NamedTuple):
    name: str
    file: str
    original: str
    mutated: str
    test: str


# fmt: off
MUTANTS = [Mutant(*row) for row in [
    ("half", "convex.py", "e * (z - 0.5 * e - a)", "e * (z - e - a)",
     "test_convex.py::test_divergence_is_equation_2"),
    ("identity", "convex.py", "return 0.5 * (z - a).square()", "return (z - a).square()",
     "test_convex.py::test_divergence_is_equation_2"),
    ("cut tail", "smooth.py", "+ torch.nn.functional.logsigmoid(-2 * a)", "- torch.nn.functional.softplus(2 * a)",
     "test_convex.py::test_tails_are_not_cut_off"),
    ("coins", "smooth.py", "return 0.5 * (own + (2 - q)", "return (own + (2 - q)",
     "test_convex.py::test_divergence_is_equation_2"),
    ("tails", "smooth.py", "t * log_q - e)", "t * log_q)",
     "test_convex.py::test_divergence_of_saturated_units[torch.float32]"),
    ("default box", "convex.py", "lower: float = 0.0, upper: float = 1.0)", "lower: float = 0.0, upper: float = 2.0)",
     "test_convex.py::test_box_is_the_unit_interval_by_default"),
    ("sum", "convex.py", "(z - a).sub_(e, alpha=0.5)", "torch.sub(z - a, e)",
     "test_shooting.py::test_toy_networks_against_the_oracle[FenchelYoung()]"),
    ("curvature", "convex.py", "else b / (1.0 + q))", "else b)",
     "test_convex.py::test_prox_is_an_argmin"),
    ("kink", "convex.py", "(a > 0).to(a.dtype)", "(a >= 0).to(a.dtype)",
     "test_convex.py::test_derivative_is_the_one_of_autograd"),
    ("bias", "connections.py", "nn.functional.linear(z, *self.tensors)", "nn.functional.linear(z, self.tensors[0])",
     "test_network.py::test_forward_pass_by_hand"),
    ("skip", "network.py", "for i, j in rest:", "for i, j in rest[1:]:",
     "test_lift.py::test_skips_are_the_modules_given"),
    ("cycle", "architecture.py", "if not 0 <= j < k <= depth:", "if not 0 <= j <= k <= depth:",
     "test_network.py::test_edge_that_closes_a_cycle"),
    ("fan", "network.py", "sum(self.sizes[j] for _, j in self._incoming[k])", "self.sizes[k - 1]",
     "test_network.py::test_initial_weights_scale_with_the_fan_in"),
    ("reordered", "lrrn/model.py", "return [plain[name] if name in plain else getattr(self, name)\n"
     "                for name in map(str, range(len(self)))]", "return list(plain.values())",
     "test_lrrn.py::test_tools_on_a_weight_are_seen_everywhere[removed]"),
    ("recomputed", "network.py", "if self._fixed is not None:\n            return self._fixed[i]", "if False:\n            pass",
     "test_torch_tools.py::test_a_call_computes_weights_once"),
    ("transposed", "connections.py", "return e @ self.tensors[0]", "return e @ self.tensors[0].T",
     "test_inference.py::test_passes_are_equation_17"),
    ("child", "network.py", "(errors[child]) for", "(errors[k + 1]) for",
     "test_network.py::test_feedback_is_the_transposed_product"),
    # connections, lifting and cross-entropy
    ("kernel", "connections.py", "e.reshape(-1, *self.target), z, self.tensors[0]", "-e.reshape(-1, *self.target), z, self.tensors[0]",
     "test_connections.py::test_gradients_against_autograd[conv2d]"),
    ("order of parts", "connections.py", "part.gradients(z, e, wanted[first:last]) + found",
     "found + part.gradients(z, e, wanted[first:last])",
     "test_connections.py::test_gradients_against_autograd[composition]"),
    ("offset", "connections.py", "row = exact(exact.transpose(row)) - offset", "row = exact(exact.transpose(row))",
     "test_connections.py::test_spectral_norm_against_numpy[conv1d]"),
    ("dilated", "connections.py", "- d * (k - 1) - 1) // s + 1", "- (k - 1) - 1) // s + 1",
     "test_connections.py::test_value_and_shape[conv2d dilated, grouped]"),
    ("masks", "connections.py", "if any(kind.__module__.startswith(REPARAMETRISING)", "if any(False",
     "test_connections.py::test_tools_on_convolutions[pruned]"),
    ("thawed", "connections.py", "isinstance(part, _BatchNorm) and part.training", "False",
     "test_connections.py::test_batch_normalisation_in_training_is_refused"),
    ("thaws", "network.py", "                module.eval()", "                pass",
     "test_lift.py::test_training_mode_leaves_batch_normalisation_frozen"),
    ("old names", "network.py", "self.register_load_state_dict_pre_hook(_translate_version_0_1)", "pass",
     "test_torch_tools.py::test_checkpoints_of_version_0_1_are_loaded"),
    ("hard sigmoid", "lift.py", "Scale(1 / 6, 0.5)", "Scale(1 / 6, 0.0)",
     "test_lift.py::test_hard_sigmoid_is_torchs"),
    ("bent", "lift.py", "at_both + at_zero - at_u - at_v", "0.0 * at_both",
     "test_lift.py::test_modules_that_are_not_affine_are_found"),
    ("residual", "lift.py", "        modules[edge] = skip", "        modules[edge] = nn.Identity()",
     "test_lift.py::test_skips_are_the_modules_given"),
    ("softplus tail", "smooth.py", "math.pi**2 / 6 - u * v - series", "math.pi**2 / 6 - series",
     "test_convex.py::test_value_is_the_definition[Softplus()]"),
    ("softplus near", "smooth.py", "near = e.abs() < 0.25 * f.clamp_max(1.0)", "near = e.abs() < 0",
     "test_convex.py::test_divergence_in_the_tails"),
    ("sigmoid coins", "smooth.py", "2 * (1 - safe), 0.5 * a)", "2 * (1 - safe), a)",
     "test_convex.py::test_divergence_is_equation_2[Sigmoid()]"),
    ("leak", "convex.py", "opposite = z - self.activation(a), z * a < 0", "opposite = z - self.activation(a), z * a < -9e9",
     "test_convex.py::test_divergence_is_equation_2[LeakyReLU(0.2)]"),
    ("bracket", "smooth.py", "(1 + q.clamp_max(0.0))", "2",
     "test_convex.py::test_prox_is_an_argmin"),
    ("lse", "losses.py", "self.lse + other.lse", "self.lse",
     "test_cross_entropy.py::test_arithmetic"),
    ("half a Hessian", "losses.py", "half = self.curvature, 0.5 * self", "half = self.curvature, 0.4 * self",
     "test_cross_entropy.py::test_curvature_and_slope_stay_within_their_bounds"),
    ("corner", "losses.py", "+ s**2 + 2 * (s * g).amax", "+ s**2 - 2 * (s * g).amax",
     "test_cross_entropy.py::test_lipschitz_constant"),
    ("smoothing", "losses.py", "+ label_smoothing / target.shape[1]", "+ label_smoothing",
     "test_cross_entropy.py::test_value_and_gradient_are_torchs"),
    ("common part", "losses.py", "+ common * top)", ")",
     "test_cross_entropy.py::test_arithmetic"),
    ("rank one", "newton.py", "1 - s * (r.square() / diagonal)", "1 + s * (r.square() / diagonal)",
     "test_cross_entropy.py::test_newton_step_against_a_dense_solver"),
    ("schur", "newton.py", "p_top * (1 - p_top) - (beside", "p_top * (1 - p_top) + (beside",
     "test_cross_entropy.py::test_newton_step_against_a_dense_solver"),
    ("no halving", "newton.py", "(2 * step).clamp_max(1.0), 0.5 * step)", "step, step)",
     "test_cross_entropy.py::test_answer_against_scipy[300.0]"),
    ("logits", "losses.py", "isinstance(G, Identity)", "True",
     "test_cross_entropy.py::test_bad_input"),
    ("steep", "objectives.py", "curvature = h.curvature_bounds[1]", "curvature = 0.5 * h.curvature_bounds[1]",
     "test_cross_entropy.py::test_beta_has_a_bound"),
    ("bounded", "bounds.py", "value + 0.5 * t * target_loss.lipschitz**2", "value + 0.1 * t * target_loss.lipschitz**2",
     "test_cross_entropy.py::test_sandwich_against_the_oracle"),
    ("euclidean", "losses.py", "0.5 * weight * torch.linalg", "weight * torch.linalg",
     "test_losses.py::test_the_two_losses"),
    ("slope", "losses.py", "[*parts, -self.slope]", "[*parts, self.slope]",
     "test_losses.py::test_gradient_is_curvature_times_z_minus_pull"),
    ("wrong", "losses.py", "torch.randint(1, classes,", "torch.randint(0, classes,",
     "test_losses.py::test_wrong_labels_are_never_right_and_uniform"),
    ("untargeted", "losses.py", "return -loss(target)", "return loss(target)",
     "test_losses.py::test_untargeted_attack_is_minus_the_loss"),
    ("squares", "potentials.py", "return 0.5 * (z - G.activation(a)).square()",
     "return (z - G.activation(a)).square()", "test_potentials.py::test_value_is_the_papers_sum"),
    ("error", "potentials.py", "return z - G.activation(a)\n", "return G.activation(a) - z\n",
     "test_potentials.py::test_error_is_minus_the_slope_in_the_preactivation"),
    ("derivative", "potentials.py", "G.derivative(a) * (z - G.activation(a))",
     "z - G.activation(a)", "test_potentials.py::test_error_is_minus_the_slope_in_the_preactivation"),
    ("inverted", "potentials.py", "a, p / gamma, q / gamma)", "a, p * gamma, q / gamma)",
     "test_potentials.py::test_prox_is_an_argmin"),
    ("unweighted", "potentials.py", "return self.gamma[k - 1] * self.base.error(k, G, z, a)",
     "return self.base.error(k, G, z, a)", "test_inference.py::test_passes_are_equation_17"),
    ("neighbour", "potentials.py", "return self.gamma[k - 1] * self.base.error(k, G, z, a)",
     "return self.gamma[k - 2] * self.base.error(k, G, z, a)",
     "test_inference.py::test_passes_are_equation_17"),
    ("tilt", "potentials.py", "p if g is None else p - g, q)", "p, q)",
     "test_potentials.py::test_prox_is_an_argmin"),
    ("minus", "potentials.py", "return Energy(self, -loss)", "return Energy(self, loss)",
     "test_potentials.py::test_energy_adds_or_subtracts_the_loss"),
    ("order", "inference/sweeps.py", "in range(net.depth, 0, -1):", "in range(1, net.depth + 1):",
     "test_inference.py::test_passes_are_equation_17"),
    ("stale", "inference/sweeps.py", "            a[child] = None", "            pass",
     "test_inference.py::test_passes_are_equation_17"),
    ("output", "potentials.py", "U.prox(L, G, a, h.pull, h.curvature)", "U.prox(L, G, a, h.pull, 0.0)",
     "test_inference.py::test_passes_are_equation_17"),
    ("converged", "inference/shooting.py", "gap <= self.tolerance, unbounded)", "gap >= 0, unbounded)",
     "test_shooting.py::test_flags_are_those_of_the_samples"),
    ("safeguard", "inference/passes.py", "alpha=ROUNDING * eps) >= sufficient", "alpha=ROUNDING * eps) >= -1e9",
     "test_shooting.py::test_every_pass_descends[LeastSquares()]"),
    ("newton", "inference/passes.py", "(1 - slope * kappa)", "(1 + slope * kappa)",
     "test_shooting.py::test_one_output_is_one_unknown[FenchelYoung()-AROVR-plain]"),
    ("secant", "inference/shooting.py", "1 / (1 - slope).clamp", "1 / (1 + slope).clamp",
     "test_shooting.py::test_one_output_is_one_unknown[FenchelYoung()-ROVR-tilted]"),
    ("estimate", "inference/passes.py", "end.e[k] - signals.e[k]", "0.1 * (end.e[k] - signals.e[k])",
     "test_shooting.py::test_the_mean_gap_is_the_one_asked_for[-0.25]"),
    ("bend", "inference/iterate.py", "return twice - 2 * there + start.energy", "return 2 * there - twice - start.energy",
     "test_shooting.py::test_past_the_border_it_says_unbounded[torch.float64-(5, 4, 6, 3)]"),
    ("beta", "objectives.py", "None, self.beta * loss_of(self.loss, target),", "None, loss_of(self.loss, target),",
     "test_objectives.py::test_one_layer_is_equation_13"),
    ("division", "objectives.py", "-self.beta * loss, -1 / self.beta)", "-self.beta * loss, -1.0)",
     "test_objectives.py::test_one_layer_is_equation_13"),
    ("swapped", "targeted.py", "self.beta * (1 - self.alpha) *", "self.beta * self.alpha *",
     "test_objectives.py::test_alpha_of_one_is_untargeted"),
    ("scale", "targeted.py", "self.beta * (self.alpha if per_alpha else 1.0)", "self.beta",
     "test_objectives.py::test_scaling_by_alpha"),
    ("rest", "difference.py", "self.h is None and self.U.minimum_is_zero", "self.h is None",
     "test_objectives.py::test_value_and_gradient[tilted-chain-FenchelYoung()]"),
    ("copies", "difference.py", "self.change.take(rows).times(second)", "self.change.take(rows)",
     "test_objectives.py::test_alpha_of_one_is_untargeted"),
    ("input", "envelope.py", "error.view(copies, -1, error.shape[1]).sum(0)", "error[:len(error) // copies]",
     "test_objectives.py::test_value_and_gradient[targeted AROVR-chain-FenchelYoung()]"),
    ("envelope", "envelope.py", "slopes = -slope", "slopes = slope",
     "test_objectives.py::test_value_and_gradient[AROVR-chain-FenchelYoung()]"),
    ("twice", "envelope.py", "if torch.is_grad_enabled():  #", "if False:  #",
     "test_torch_tools.py::test_second_derivatives_are_refused[AROVR]"),
    ("frozen", "envelope.py", "return _Last.apply(slope, *ctx.saved_tensors) if torch.is_grad_enabled() else slope",
     "return slope", "test_torch_tools.py::test_second_derivatives_are_refused[constrained]"),
    ("share of one", "difference.py", "slope = self.factor / samples", "slope = self.factor",
     "test_gradients.py::test_gradients_are_those_of_backward[AROVR(beta=0.2)0]"),
    ("signs", "difference.py", "[[-slope], [slope]]", "[[slope], [-slope]]",
     "test_gradients.py::test_gradients_are_those_of_backward[TargetedROVR(alpha=0.4, beta=0.3)]"),
    ("summed up", "envelope.py", "        net.zero_grad()\n", "        pass\n",
     "test_gradients.py::test_gradients_reach_what_weights_are_computed_from[weight_norm]"),
    ("other rows", "objectives.py", "self._gradients(fixed, inputs[rows], target[rows])",
     "self._gradients(fixed, inputs[rows], target[:len(rows)])",
     "test_gradients.py::test_over_mini_batches[AROVR(beta=0.2)0]"),
    ("left too early", "inference/shooting.py", "LEFT_AT = 0.1", "LEFT_AT = 1000.0",
     "test_shooting.py::test_later_passes_are_for_those_that_need_them"),
    ("misplaced", "inference/shooting.py", "left if self.rows is None else self.rows[left]", "left",
     "test_shooting.py::test_passes_for_fewer_and_fewer_samples"),
    ("padding", "connections.py", "0 <= i * stride - padding + tap * dilation < source", "True",
     "test_connections.py::test_frobenius_norm_against_numpy[conv2d]"),
    ("one for all", "inference/iterate.py", "return torch.ones_like(proved)", "return proved",
     "test_stability_warning.py::test_one_sample_proves_it_for_all"),
    ("less curved", "inference/iterate.py", "q[:, 0] <= q[proved].amax()", "q[:, 0] >= q[proved].amax()",
     "test_stability_warning.py::test_the_proof_is_for_losses_as_curved"),
    ("single", "objectives.py", "dtype if self.strength > SINGLE else torch.float64", "dtype",
     "test_precision.py::test_small_beta_in_single_precision[AROVR-1e-07]"),
    ("coarse", "objectives.py", "self.value(*checked).to(torch.promote_types(x.dtype, LEAST))",
     "self.value(*checked).to(x.dtype)",
     "test_precision.py::test_half_precision[ROVR-torch.bfloat16]"),
    ("autocast", "checks.py", "with torch._C._DisableAutocast():", "if True:",
     "test_precision.py::test_certificates_are_not_autocast"),
    ("other batch", "potentials.py", "if (rows := self.potential.rows()) not in (None, samples) and samples is not None:",
     "if False:", "test_bad_input.py::test_tilts_for_another_batch[6]"),
    ("confined", "inference/iterate.py", "clamp(0.0 if low > -torch.inf else -torch.inf,", "clamp(-torch.inf,",
     "test_shooting.py::test_the_direction_stays_in_the_domain[1]"),
    ("given up", "constrained.py", "(report.converged | (U > 0))", "(report.converged | (U >= 0))",
     "test_constrained.py::test_beta_at_which_inference_fails_is_too_large[given up]"),
    ("run away", "constrained.py", "(U <= self.delta) & ~report.unbounded", "(U <= self.delta)",
     "test_constrained.py::test_beta_at_which_inference_fails_is_too_large[unbounded]"),
    ("all passes", "constrained.py", "passes + report.passes", "report.passes",
     "test_constrained.py::test_beta_at_which_inference_fails_is_too_large[unbounded]"),
    ("infinite bound", "constrained.py",
     "trusted & ~without_minimum(net, energy, unbounded.flatten()).view_as(trusted)", "trusted",
     "test_constrained.py::test_what_is_infinite_for_one_sample_bounds_none"),
    ("reach", "oracle/__init__.py", "np.abs(units.b[sample]) + np.abs(", "np.abs(units.b[sample]) - np.abs(",
     "test_oracle.py::test_the_reach_covers_the_forward_pass"),
    ("joint gap", "generalized.py", "gap = 0.5 * last.square()", "gap = last.square()",
     "test_generalized.py::test_gap_is_half_the_squared_slope_over_the_energy"),
    ("lengths", "lipschitz.py", "1 / 16, 1 / 4, 1.0)", "1 / 16, 1 / 5, 1.0)",
     "test_lipschitz.py::test_climbing_tries_these_lengths[0.25]"),
    ("curved border", "bounds.py", "(Q[:, :, None] * root)", "root",
     "test_loss_weights.py::test_border_for_other_curvatures[2.0]"),
    ("weighted bound", "bounds.py", "(slope / (1 - greatest * t)).sum(-1)", "(slope / (1 - steepest * t)).sum(-1)",
     "test_loss_weights.py::test_two_sided_bounds_are_attained[outputs]"),
    ("bound", "objectives.py", "not self.beta * curvature < gamma:", "self.beta * curvature > gamma:",
     "test_checks.py::test_beta_too_large_for_the_network"),
    ("variance", "tilts.py", "self.sd * torch.randn", "self.sd**0.5 * torch.randn",
     "test_tilts.py::test_gaussian_tilt"),
    ("best", "experiments/training.py", "(self.validation[i], -i)", "(self.validation[i], i)",
     "test_training.py::test_best_epoch_is_the_first_maximum"),
    ("a tie", "experiments/training.py", "if mistakes >= self.fewest:", "if mistakes > self.fewest:",
     "test_training.py::test_best_so_far_is_exact"),
    ("easy first", "experiments/training.py", "torch.cat(margins).argsort()", "torch.cat(margins).argsort(descending=True)",
     "test_training.py::test_best_so_far_looks_where_mistakes_are"),
    ("no end", "experiments/training.py", "if last and history.test[-1] is None:", "if False:",
     "test_training.py::test_what_chooses_the_epoch_is_measured"),
    ("noise for each", "experiments/controls.py", "self._draw(torch.randn, a.shape[1:], a)", "self._draw(torch.randn, a.shape, a)",
     "test_controls.py::test_noise_of_a_batch"),
    ("noisy output", "experiments/controls.py", "        if k < net.depth:\n", "        if True:\n",
     "test_controls.py::test_noise_of_a_sample"),
    ("no mean", "experiments/controls.py", ">= self.strength) / (1 - self.strength)", ">= self.strength)",
     "test_controls.py::test_dropout"),
    ("biases", "experiments/controls.py", "if tensor.ndim > 1)", "if tensor.ndim > 0)",
     "test_controls.py::test_decay_is_torch_s"),
    ("smooth", "experiments/controls.py", "+ share / target.shape[1])", "+ share)",
     "test_controls.py::test_smoothing_is_torch_s"),
    ("towards", "experiments/controls.py", "(1 + share) * target - share * other", "(1 - share) * target + share * other",
     "test_controls.py::test_away_from_a_wrong_label_is_an_attack_on_the_output"),
    ("attack's", "experiments/attacks.py", "copy.deepcopy(net).eval().requires_grad_(False), bounds, device=x.device)\n    labels",
     "net.eval(), bounds, device=x.device)\n    labels", "test_controls.py::test_attacked_inputs"),
    ("short step", "experiments/attacks.py", "step: float = 0.4", "step: float = 0.04",
     "test_controls.py::test_an_attack_on_a_linear_network_is_the_best_one"),
    ("fixed gamma", "envelope.py", "fixed = U(net, end.z, end.a).view_as(values)", "fixed = U(net, end.z, end.a).view_as(values).detach()",
     "test_learned_gamma.py::test_closed_form"),
    ("second derivatives", "envelope.py", "values + once(fixed) - fixed.detach()", "values + fixed - fixed.detach()",
     "test_learned_gamma.py::test_no_second_derivatives"),
    ("only gamma", "envelope.py", "isinstance(U, Reweighted) else U.g", "isinstance(U, Reweighted) else ()",
     "test_learned_gamma.py::test_a_tilt"),
    ("back", "experiments/meta.py", "torch.optim.SGD(ahead.parameters(), positive", "torch.optim.SGD(ahead.parameters(), 2 * positive",
     "test_meta.py::test_hypergradient_is_that_of_the_step"),
    ("wrong way", "experiments/meta.py", "[-learning_rate * (a - b)", "[learning_rate * (a - b)",
     "test_meta.py::test_hypergradient_is_that_of_the_step"),
    ("by gamma", "experiments/meta.py", "self.optimizer.step()\n", "self.optimizer.step(); self.optimizer.step()\n",
     "test_meta.py::test_one_step_of_gamma"),
    ("always", "experiments/meta.py", "if self.steps % self.every == 0:", "if True:",
     "test_meta.py::test_training_is_that_of_arovr_with_the_gamma_of_now"),
    ("any epoch", "experiments/tables.py", "if validation is not None and validation > best:", "if validation is not None:",
     "test_tables.py::test_best_so_far_follows_validation"),
    ("shuffled", "experiments/training.py", "torch.randperm(len(train.y), generator=generator, device=home(generator))",
     "torch.randperm(len(train.y))", "test_training.py::test_training_is_deterministic"),
    ("last", "experiments/training.py", "[len(rows) for rows in batches]", "[batch for rows in batches]",
     "test_training.py::test_an_epoch_by_hand"),
    ("alike", "experiments/tables.py", "self.difference.confidence(0.9)", "self.difference.confidence(0.5)",
     "test_tables.py::test_alike_is_what_two_one_sided_tests_say"),
    ("unseeded", "data/__init__.py", '.manual_seed(seed)', "", "test_experiments.py::test_methods_are_paired"),
    ("atomic", "experiments/records/files.py", 'temporary.open("x", encoding="utf-8") as', 'path.open("w") as',
     "test_experiments.py::test_what_is_no_json_leaves_nothing"),
    ("stranger", "experiments/records/recorded.py", 'if record["config"] != run.config:', "if False:",
     "test_experiments.py::test_record_of_another_configuration_is_named"),
    ("none", "experiments/records/recorded.py", "asdict(self).items() if value is not None",
     "asdict(self).items()", "test_experiments.py::test_settings_of_none_leave_the_key_alone"),
    ("again", "experiments/records/parallel.py", "for run in runs if load(run, folder) is None}",
     "for run in runs if load(run, folder) or True}",
     "test_experiments.py::test_only_what_is_missing_is_run"),
    ("late", "experiments/records/parallel.py", "for run, found in _with_progress(work, missing):",
     "for run, found in list(_with_progress(work, missing)):",
     "test_experiments.py::test_a_stopped_batch_keeps_what_is_done"),
    ("writer", "experiments/records/parallel.py", "st_mtime > ABANDONED", "st_mtime < ABANDONED",
     "test_records.py::test_only_abandoned_files_are_removed"),
    ("impatient", "experiments/records/parallel.py", "failed.append((run, failure))",
     "failed.append((run, failure)); break", "test_records.py::test_a_run_that_fails_stops_no_other[1]"),
    ("namesake", "experiments/records/recorded.py", 'if record["kind"] != run.kind:', "if False:",
     "test_experiments.py::test_record_of_another_kind_is_named"),
    ("lenient", "experiments/records/tolerances.py", "np.abs(new - old).mean() <=", "(new - old).mean() <=",
     "test_records.py::test_status_says_whether_results_agree[{'test': 0.5017}-1]"),
    ("loose", "experiments/records/tolerances.py", "Tolerance(14e-4, relative=False)",
     "Tolerance(5e-3, relative=False)", "test_records.py::test_status_says_whether_results_agree"),
    ("sealed", "experiments/records/files.py", 'if digest(record) != record["digest"]:', "if False:",
     "test_records.py::test_damage_is_named[edited]"),
    ("twice said", "experiments/records/files.py", "if len(found) < len(pairs):", "if False:",
     "test_records.py::test_damage_is_named[twice]"),
    ("boundless", "experiments/records/files.py", "if not math.isfinite(number):", "if False:",
     "test_records.py::test_damage_is_named[infinite seconds]"),
    ("fraction", "experiments/records/settings.py", "int: Integral", "int: Real",
     "test_records.py::test_settings_of_another_type_are_refused"),
    ("lossy", "experiments/records/settings.py", "if converted != value or", "if",
     "test_records.py::test_settings_of_another_type_are_refused"),
    ("vanished", "experiments/records/parallel.py", "if lost:", "if False:",
     "test_records.py::test_records_that_vanish_are_missed"),
    ("loitering", "experiments/records/parallel.py", "if jobs != 1:", "if False:",
     "test_scale_out.py::test_no_worker_is_left_after_run_all"),
    ("bomb", "data/idx.py", "stream.read(file.size + 1)", "stream.read()",
     "test_data.py::test_no_more_is_unpacked_than_the_file_should_hold"),
    ("flood", "data/files.py", "check_size(payload, most)", "pass",
     "test_data.py::test_a_download_has_a_size"),
    ("patient", "data/files.py", "if time.monotonic() > end:", "if False:",
     "test_data.py::test_a_download_that_never_ends_is_given_up"),
    ("any bytes", "data/idx.py", "if digest != expected:", "if False:",
     "test_cifar.py::test_each_file_in_the_archive_is_checked"),
    ("labels last", "data/cifar.py", "records[:, 1:]", "records[:, :-1]",
     "test_cifar.py::test_colour_images_are_the_bytes_over_255"),
    ("opened", "data/cifar.py", "    _check(payload, file)\n    wanted", "    wanted",
     "test_cifar.py::test_another_archive_is_not_opened"),
    ("as packed", "data/cifar.py", "[found[batch] for batch in _BATCHES]", "list(found.values())",
     "test_cifar.py::test_colour_images_are_the_bytes_over_255[pack]"),
    ("unfixed", "experiments/robustness.py", "net, x = prepared(net, x)", "prepared(net, x)",
     "test_robustness.py::test_one_network_gives_margins_and_bound"),
    ("whole table", "experiments/training.py", "_check_split(name, _fixed(net), split, labels=True)", "pass",
     "test_training.py::test_samples_that_do_not_fit[validation-label]"),
    ("twice weighed", "potentials.py", "else tuple(map(operator.mul, gamma, potential.gamma)))", "else gamma)",
     "test_stability_warning.py::test_weights_of_weights_multiply[numbers]"),
    ("unused", "experiments/runs.py", "for name in unused:", 'for name in unused - {"alpha"}:',
     "test_experiments.py::test_unused_settings_do_not_matter"),
    ("uncounted", "checks.py", "if value < least:", "if False:",
     "test_experiments.py::test_settings_out_of_bounds_are_refused"),
    ("gammas", "experiments/runs.py", "objective.potential.check(net)", "pass",
     "test_experiments.py::test_settings_out_of_bounds_are_refused"),
    ("anywhere", "experiments/runs.py", 'one_of("dataset", self.dataset, (*data.NAMES, *CIFAR))', "pass",
     "test_experiments.py::test_unknown_names_are_refused"),
    ("replaced", "experiments/tables.py", "if seed in cell:", "if False:",
     "test_tables.py::test_a_second_record_of_a_seed_is_refused"),
    ("uphill", "lipschitz.py", "return nn.functional.normalize(gradient)",
     "return -nn.functional.normalize(gradient)",
     "test_lipschitz.py::test_climbing_finds_more_than_the_samples_show"),
    ("worst relaxation", "lipschitz.py", "first.new_tensor(RELAXATIONS))[0].min()",
     "first.new_tensor(RELAXATIONS))[0].max()",
     "test_lipschitz.py::test_relaxations_in_closed_form"),
    ("discounted", "lrrn/model.py", "self.gamma**k * (regression", "self.gamma * (regression",
     "test_lrrn.py::test_energy_is_equation_1_and_17"),
    ("clamped", "lrrn/inference.py", "qp.g[:, :free] - target @", "qp.g[:, :free] + target @",
     "test_lrrn.py::test_solution_is_that_of_scipy"),
    ("held", "lrrn/implicit.py", "(qp.inside(z), torch.inf, 0.0)",
     "(qp.inside(z), torch.inf, torch.inf)",
     "test_lrrn_derivatives.py::test_output_is_differentiated_exactly"),
    ("second order", "lrrn/implicit.py", "z = ctx.saved_tensors",
     "z = (part.detach() for part in ctx.saved_tensors)",
     "test_lrrn_derivatives.py::test_second_derivatives_of_a_chain_by_hand"),
    ("refused order", "lrrn/objectives.py", "if torch.is_grad_enabled():", "if False:",
     "test_lrrn_derivatives.py::test_second_derivatives_of_the_losses_are_refused"),
    ("unmapped", "lrrn/implicit.py", "*parts, solver).view_as(g)",
     "*parts, solver).flip(0).view_as(g)", "test_lrrn_derivatives.py::test_transforms_give_the_jacobian"),
    ("one bound", "lrrn/model.py", "getattr(function, side)", 'getattr(function, "lower")',
     "test_lrrn.py::test_bounds_are_those_of_the_sets"),
    ("one end", "lrrn/inference.py", "(target < outputs.lower) | ", "",
     "test_lrrn_checks.py::test_inputs_that_do_not_fit"),
    ("lopsided", "lrrn/boxqp.py", "if (self.H - self.H.T).norm() >", "if False and 0 >",
     "test_lrrn_checks.py::test_programs_without_one_solution"),
    ("empty box", "lrrn/boxqp.py", "if empty.any():", "if empty.all():",
     "test_lrrn_checks.py::test_programs_without_one_solution"),
    ("blown up", "lrrn/model.py", "            finite(name, parameter)", "            pass",
     "test_lrrn_checks.py::test_parameters_that_have_blown_up_are_named"),
    ("unequal", "propositions/statements.py", "return -(left - right).abs()",
     "return (left - right).abs()",
     "test_propositions_controls.py::test_an_equality_is_minus_the_difference"),
    ("restless", "propositions/adversarial.py", "moved.square(), slope.square()])", "moved.square()])",
     "test_propositions_controls.py::test_interpolating_network_rests"),
    ("weakened quadratic", "propositions/adversarial.py", "generalized(toy, scale * schur)",
     "generalized(toy, 10 * scale * schur)",
     "test_propositions_controls.py::test_quadratic_distance_is_harder"),
    ("one side", "propositions/targeted.py", "gap - least, most - gap])", "gap - least])",
     "test_targeted_controls.py::test_larger_alpha_is_harder"),
    ("on a kink", "propositions/toys.py", "- kink).abs().min()", "- kink).abs().max()",
     "test_targeted_controls.py::test_the_distance_to_kinks_by_hand"),
    ("one-sided maximum", "propositions/lrrn.py", "max(above, abs(gain(beta**-0.5, beta) -",
     "max(above, (gain(beta**-0.5, beta) -", "test_lrrn_propositions.py::test_largest_value"),
    ("better modes", "propositions/lrrn.py", "abs(best / least - 1) + 1", "(best / least - 1) + 1",
     "test_lrrn_propositions.py::test_principal_components"),
    ("distance", "propositions/lrrn_toys.py", "scale = max(float(q", "scale = min(float(q",
     "test_lrrn_propositions.py::test_distance_by_hand"),
    ("certificate", "lrrn/boxqp.py", "residual = ((s @ inverse) * s)",
     "residual = 0.1 * ((s @ inverse) * s)", "test_lrrn.py::test_certificate_bounds_what_is_left"),
    ("coordinate", "lrrn/boxqp.py", "(qp.g[:, j] - z @ row) / row[j]",
     "0.5 * (qp.g[:, j] - z @ row) / row[j]",
     "test_lrrn.py::test_coordinate_descent_is_unit_by_unit_exact"),
    ("midpoint", "lrrn/objectives.py", "(clamped + free) / 2", "free",
     "test_lrrn_objectives.py::test_values_are_differences_of_minima"),
    ("above", "lrrn/bounds.py", "- (1 + beta) ** 2 * W.T @ inner)", "- W.T @ inner)",
     "test_lrrn_bounds.py::test_curvature_from_above_is_used"),
    ("margin", "lrrn/bounds.py", "(margin(z[-1]) / math.sqrt(2) - error)",
     "(margin(z[-1]) - error)", "test_lrrn_bounds.py::test_radius_of_a_linear_classifier"),
    # internal robustness
    ("any network", "experiments/records/tolerances.py", "CHOSEN = Tolerance(9e-2)", "CHOSEN = Tolerance(0.2)",
     "test_internal.py::test_every_finding_is_judged"),
    ("not inverse", "gauge.py", "after[:, None] * W / before", "after[:, None] * W * before",
     "test_gauge.py::test_rescaling_leaves_the_function"),
    ("unscaled bias", "gauge.py", "[b.double() * s for b, s in", "[b.double() for b, s in",
     "test_gauge.py::test_rescaling_leaves_the_function"),
    ("weightless bias", "gauge.py", "(1 / r[k - 1]) + constant[k - 1]  #", "(1 / r[k - 1])  #",
     "test_gauge.py::test_one_unit_by_hand"),
    ("gauge below", "gauge.py", "@ (1 / r[k - 1])", "@ r[k - 1]",
     "test_gauge.py::test_what_comes_in_goes_out"),
    ("square root", "gauge.py", "(sent / taken).sqrt(), 1.0)", "(sent / taken), 1.0)",
     "test_gauge.py::test_one_unit_by_hand"),
    ("one sweep", "gauge.py", "        if settled:\n", "        if True:\n",
     "test_gauge.py::test_there_is_one_gauge"),
    ("undead", "gauge.py", "weights[k] * mask, squares[k] * mask", "weights[k], squares[k] * mask",
     "test_gauge.py::test_dead_units_are_gone[no output]"),
    ("biased to death", "gauge.py", "(P @ alive[-1] + c > 0)", "(P @ alive[-1] > 0)",
     "test_gauge.py::test_a_unit_with_nothing_but_a_bias"),
    ("biased dead", "gauge.py", "biases = [b * a for b, a in zip(biases, alive[1:])]", "pass",
     "test_gauge.py::test_dead_units_are_gone[no output]"),
    ("any function", "gauge.py", "if not isinstance(net.function(k), HOMOGENEOUS):", "if False:",
     "test_gauge.py::test_what_cannot_be_rescaled"),
    ("raw gauge", "experiments/internal.py", "return balanced(net.fixed(torch.float64)), x", "return net.fixed(torch.float64), x",
     "test_internal.py::test_records_do_not_depend_on_scales"),
    ("raw bits", "experiments/internal.py", "2, 8) - 1) - 1, balanced(net)", "2, 8) - 1) - 1, net",
     "test_internal.py::test_coarse_weights_do_not_depend_on_scales"),
    ("added noise", "experiments/internal.py", "last = net.connection(k)(z * factors(z))",
     "last = net.connection(k)(z + factors(z) - 1)",
     "test_internal.py::test_factors_do_not_depend_on_scales"),
    ("two of them", "experiments/internal.py", "(math.sqrt(2) * lipschitz.certified(upper))", "lipschitz.certified(upper)",
     "test_internal.py::test_two_outputs_leave_no_gap"),
    ("absolute", "experiments/internal.py", "Flips(*(length / torch.linalg.vector_norm(z, dim=1) for length in found))",
     "found", "test_internal.py::test_one_layer_of_a_linear_network"),
    ("own slope", "experiments/internal.py", "torch.linalg.vector_norm(own - J, dim=2)", "torch.linalg.vector_norm(J, dim=2)",
     "test_internal.py::test_the_linearisation_is_autograds"),
    ("lost kink", "experiments/internal.py", "J = (J * net.function(k).derivative(net.preactivation(k, z))[:, None]) @", "J = J @",
     "test_internal.py::test_the_linearisation_is_autograds"),
    ("longest attack", "experiments/internal.py", "return found.amin(0) * unit", "return found.amax(0) * unit",
     "test_internal.py::test_the_shorter_attack_counts"),
    ("unit steps", "experiments/internal.py", "unit = known.median() if len(known) else", "unit = lengths.new_ones(()) if len(known) else",
     "test_internal.py::test_attacks_take_steps_that_fit"),
    ("no box", "experiments/internal.py", "low, high = (-reach, reach) if box is None else", "low, high = (-reach, reach) if True else",
     "test_internal.py::test_a_box_is_kept"),
    ("narrow", "experiments/internal.py", "FAR = 1000.0", "FAR = 1.0",
     "test_internal.py::test_no_box_around_hidden_layers"),
    ("cross term", "experiments/internal.py", "+ diagonal - 2 * row", "+ diagonal - row",
     "test_internal.py::test_all_layers_of_a_linear_network"),
    ("far rival", "experiments/internal.py", "out.shape[1] - 1), largest=False)", "1))",
     "test_internal.py::test_two_layers_against_convex_optimisation"),
    ("upward", "experiments/internal.py", "flips, low, t), torch.where(flips, t, high)", "flips, t, low), torch.where(flips, high, t)",
     "test_internal.py::test_all_layers_of_a_linear_network"),
    ("kept units", "experiments/internal.py", ">= probability).to(z)", "< probability).to(z)",
     "test_internal.py::test_deletion_in_closed_form"),
    ("four levels", "experiments/internal.py", "most, net = 2 ** (at_least", "most, net = 1 + 2 ** (at_least",
     "test_internal.py::test_coarse_weights[3]"),
    ("wrong ones, too", "experiments/internal.py", "x = split.x[right.nonzero()[:images, 0]]", "x = split.x[:images]",
     "test_internal.py::test_images_are_the_first_that_are_read_correctly"),
    ("last match", "experiments/internal.py", 'if "matched" not in kept and mean_loss', "if mean_loss",
     "test_internal.py::test_networks_are_matched_at_the_first_epoch_with_this_loss"),
    ("last look", "experiments/internal.py", "if so_far.best_epoch == epoch:", "if True:",
     "test_internal.py::test_a_record_is_that_of_its_networks"),
    ("two outputs", "experiments/robustness.py", "(math.sqrt(2) * rho)", "rho",
     "test_robustness.py::test_the_radius_of_two_outputs_in_closed_form"),
    ("collapsed", "experiments/robustness.py", "x.new_zeros(len(x)) if rho == 0", "x.new_ones(len(x)) if rho == 0",
     "test_robustness.py::test_a_network_that_collapses_is_recorded"),
    ("last network", "experiments/robustness.py", "if so_far.best_epoch == len(so_far.validation):", "if True:",
     "test_robustness.py::test_the_result_is_the_best_epochs"),
    ("unwatched bound", "bounds.py", "return first - second", "return first",
     "test_robustness.py::test_the_radius_of_two_outputs_in_closed_form"),
    ("centred", "experiments/pca.py", "x = dataset.train.x - dataset.train.x.mean(0)", "x = dataset.train.x",
     "test_pca.py::test_modes_are_those_of_scikit_learn"),
    ("rounded down", "quantisation.py", ".round()", ".floor()",
     "test_records.py::test_filters_are_compared_as_numbers"),
    ("one scale", "quantisation.py", ".abs().amax(1) / 127", ".abs().amax().expand(len(W)) / 127",
     "test_records.py::test_filters_are_compared_as_numbers"),
    ("biased", "experiments/lrrn_runs.py", "bias=self.bias is not False", "bias=True",
     "test_lrrn_experiments.py::test_without_biases"),
    ("remark-2-scale", "propositions/lrrn_equivalence.py", "plain.weights[0].copy_(W0 / d)",
     "plain.weights[0].copy_(W0 * d)",
     "test_lrrn_equivalence.py::test_several_outputs_need_a_matrix"),
    ("remark-2-root", "propositions/lrrn_equivalence.py", "half - root, half + root", "half + root, half - root",
     "test_lrrn_equivalence.py::test_without_a_discount_nothing_changes"),
    ("remark-2-bias", "propositions/lrrn_equivalence.py", "linear = b0 + first * W0 @ c0 -", "linear = b0 -",
     "test_lrrn_equivalence.py::test_several_outputs_need_a_matrix"),
    ("far-border", "propositions/borders.py", "(middle, high) if grows else (low, middle)",
     "(low, middle) if grows else (middle, high)",
     "test_statements_can_fail.py::test_far_border_of_one_hidden_unit"),
    ("quotient", "propositions/borders.py", "move = 0.5 * (layers[-1]", "move = (layers[-1]",
     "test_propositions.py::test_statement_holds[far_border]"),
    ("violations", "propositions/registry.py", "slack < -self.tolerance", "slack < -1 - self.tolerance",
     "test_statements_can_fail.py::test_a_claim_over_its_limit_counts_as_a_violation"),
    ("price mark", "widgets/one_unit.js",
     "plot.mark([p.z, s.leastSquares.price], { colour: RED, radius: 6 });", "",
     "test_drawing.py::test_one_unit"),
    ("upside down", "widgets/landscape.js", "lift: -15 * up", "lift: 15 * up",
     "test_drawing.py::test_landscape"),
    ("on the border", "widgets/landscape.js", "-1e-12 || x > y)", "-1e-12 || x < y)",
     "test_explorable_words.py::test_landscape"),
    ("layers", "widgets/anisotropy.js", "plot.arrow([z1, z2], corner,", "plot.arrow(corner, [z1, z2],",
     "test_drawing.py::test_anisotropy"),
    ("dots", "widgets/sandwich.js", "plot.graph(beta => bound(p, -1, beta), { ...DOTS, points: 100 });",
     "", "test_drawing.py::test_sandwich"),
    ("far border", "widgets/sandwich.js", "1 / Math.max(far(p, 1)", "1 / Math.min(far(p, 1)",
     "test_drawing.py::test_sandwich"),
    ("repelled", "widgets/targets.js", "q < 0 ? [right(p), wrong(p)]", "q > 0 ? [right(p), wrong(p)]",
     "test_drawing.py::test_targets"),
    ("no feedback", "widgets/gains.js", 'curve("layers"), { colour: BLUE,', 'curve("layers"), { colour: DOTS.colour,',
     "test_drawing.py::test_gains"),
    ("halo", "widgets/plot.js", "      pen.strokeText(words, ...at);\n", "",
     "test_drawing.py::test_one_unit"),
    ("faint words", "widgets/plot.js", ">= 4.5) || ink", ">= 3) || ink", "test_drawing.py::test_sandwich"),
    ("every change", "widgets/runtime.js", "pending ||= requestAnimationFrame(redraw)", "redraw()",
     "test_explorable_runtime.py::test_a_redraw_computes_and_draws_once"),
    ("far mark", "widgets/runtime.js", "share(at)} * (100% - 16px)", "share(at)} * (100% + 16px)",
     "test_explorable_words.py::test_landscape"),
]]
# fmt: on


class Outcome(NamedTuple):
    """What became of the tests: ``failed`` are failed assertions, ``broken`` all other errors."""

    passed: list[str]
    failed: list[str]
    broken: list[str]
    output: str


class _Listener:
    """A pytest plugin that sorts the results, and leaves failing instances as large as they are."""

    def __init__(self):
        self.outcome = Outcome([], [], [], "")

    def pytest_sessionstart(self):
        settings.register_profile("unshrunk", settings.get_profile("suite"),
                                  phases=(Phase.explicit, Phase.generate))
        settings.load_profile("unshrunk")

    def pytest_collectreport(self, report):
        if report.failed:
            self.outcome.broken.append(report.nodeid)

    def pytest_runtest_makereport(self, item, call):
        if call.excinfo is None:
            if call.when == "call":
                self.outcome.passed.append(item.nodeid)
        elif call.excinfo.errisinstance((AssertionError, pytest.fail.Exception)):
            self.outcome.failed.append(item.nodeid)
        else:
            self.outcome.broken.append(item.nodeid)


def mutate(source: str, mutant: Mutant) -> str:
    """The file's text with the bug; ValueError unless the original is there exactly once."""
    count = source.count(mutant.original)
    if count != 1:
        raise ValueError(f"mutant {mutant.name!r}: {mutant.file} holds {mutant.original!r} "
                         f"{count} times, not once; adapt tests/mutants.py")
    return source.replace(mutant.original, mutant.mutated)


def examine(folder: Path, tests: list[str], mutant: Mutant | None = None) -> Outcome:
    """Run tests, up to the first that fails, on a copy of lnn_core in ``folder``.

    For a fresh process: it changes the working folder and what is imported.
    """
    # Dates and compiled files come along: only what has changed is compiled.
    shutil.copytree(ROOT / "lnn_core", folder / "lnn_core")
    (folder / "__pycache__").mkdir()
    for name in {*SUPPORT, *(test.split("::")[0] for test in tests)}:
        shutil.copy2(ROOT / "tests" / name, folder)
        for compiled in (ROOT / "tests" / "__pycache__").glob(f"{Path(name).stem}.*.pyc"):
            shutil.copy2(compiled, folder / "__pycache__")
    if mutant:
        path = folder / "lnn_core" / mutant.file
        path.write_text(mutate(path.read_text(), mutant))
        Path(importlib.util.cache_from_source(path)).unlink(missing_ok=True)
    os.chdir(folder)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    assert "lnn_core" not in sys.modules
    sys.path.insert(0, str(folder))
    gc.freeze()  # pytest collects garbage several times: what the server imported is none
    listener, output = _Listener(), io.StringIO()
    with redirect_stdout(output):
        # A base folder of its own: in the shared one, processes remove each other's old folders while these
        # are being listed, and the listing, left open, is an error at the end.
        pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-W", "error", "-c", os.devnull,
                     "--rootdir", str(folder), "--basetemp", str(folder / "temporary"), *tests],
                    plugins=[listener])
    assert Path(sys.modules["lnn_core"].__file__).is_relative_to(folder), "tested another lnn_core"
    return listener.outcome._replace(output=output.getvalue())


def _send(end: Connection, *arguments) -> None:
    os.setpgrp()
    end.send(examine(*arguments))


def apart(*arguments) -> Outcome:
    """``examine`` in a fresh process, which ends with it, and with it all that its tests started."""
    here, there = multiprocessing.Pipe(duplex=False)
    process = SERVER.Process(target=_send, args=(there, *arguments))
    process.start()
    there.close()
    try:
        return here.recv()  # EOFError if the process dies
    finally:
        with suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        process.join()


#: Starts processes in which the slow imports are done.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload([
    "anywidget", "bs4", "filelock", "hypothesis", "joblib", "matplotlib.pyplot",
    "playwright.sync_api", "pytest", "requests", "scipy.optimize", "scipy.stats",
    "sklearn.datasets", "torch", "torch._dynamo", "torch.distributed.tensor", "tqdm.auto"])
