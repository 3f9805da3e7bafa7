"""Losses computed on the client's side, from a ``forward``'s tensors; ``registry`` names them.

A loss here is ``(data, logprobs, *, settings) -> (loss, metrics)``, the signature of HUD's SDK for
``forward_backward_custom``. ``differentiate`` turns it into what ``backward`` is sent.

Letters of shapes, in all modules here:

    D  datums (turns) of a forward         S  trajectories; one or more datums each
    T  positions of one datum              N  action tokens of all datums: mask 1, datum by datum

pi is the current policy, ``logprobs``; q is the policy that sampled, ``sampling_logprobs``. There is one
gradient per forward, so pi also plays the part of the "old" policy of papers that tell three apart: old
trainer, trainer, sampler. Their trainer-to-old-trainer ratio is 1 here, and all the distance, whether it
comes from staleness or from two engines that compute differently, is in pi / q.

    loss                 what bounds a token's weight                    normalised by
    importance_sampling  nothing                                         1 (sum)
    ppo                  silent once it moved past a bound, by sign      1 (sum)
    cispo                weight clipped, held constant                   1 (sum)
    tis                  weight capped from above, held constant         1 (sum)
    icepop               silent outside a wide band, both signs          1 (sum)
    double_sided         silent outside a narrow band, both signs        1 (sum)
    dro                  no weight; quadratic pull back to q             1 (sum)
    dapo                 as ppo                                          N
    dr_grpo              as ppo                                          S * max_tokens
    gspo                 as ppo, by the trajectory's mean ratio          S * tokens of the trajectory

Every loss takes three settings beside its own:

    advantage     how rewards become advantages, see ``advantages``: group, group_std, leave_one_out or plain
    kl            strength of a penalty that holds pi near q, in units of reward per nat; 0, the default: none
    kl_estimator  k1, k2 or k3, see ``kl``; k3 is the default

The penalty is added to the loss of every action token, of clipped and masked ones too, and is then summed
or averaged with it.

Sums are what the service's built-in losses use; their gradient grows with the batch, and one learning
rate fits them all. The last three are means over *one forward*: of a batch that is sent in several
forwards, each part counts as a whole.
"""
