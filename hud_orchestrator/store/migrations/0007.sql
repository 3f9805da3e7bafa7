-- More of what no code may do is refused by the store: see schema.sql.

DROP TRIGGER a_call_is_of_a_step_in_hand;
DROP TRIGGER no_call_passes_a_fence;
DROP TRIGGER a_call_ends_once;
DROP TRIGGER a_step_ends_once;
DROP TRIGGER a_group_ends_once;

CREATE INDEX steps_with_strays ON steps (strays) WHERE strays <> '[]';

-- What must never be is refused here, whatever asks for it. A step begins in hand, after the last one that is
-- over and on the head that this one left, ...
CREATE TRIGGER a_step_begins_in_hand BEFORE INSERT ON steps
WHEN NEW.state <> 'planned' OR NEW.checkpoint IS NOT NULL OR EXISTS
     (SELECT 1 FROM steps WHERE id = NEW.id OR state = 'planned')
BEGIN
    SELECT RAISE(ABORT, 'a step begins in hand, and is the only one');
END;

CREATE TRIGGER a_step_follows_the_last_one BEFORE INSERT ON steps
WHEN NEW.number <> 1 + coalesce(
         (SELECT max(number) FROM steps WHERE state NOT IN ('abandoned', 'rolled_back')), 0)
     OR NEW.head_before IS NOT coalesce(
         (SELECT checkpoint FROM steps WHERE state NOT IN ('abandoned', 'rolled_back')
          AND checkpoint IS NOT NULL ORDER BY number DESC LIMIT 1), NEW.head_before)
BEGIN
    SELECT RAISE(ABORT, 'a step follows the last one that is over, on the head that it left');
END;

-- ... is what it was planned to be, ...
CREATE TRIGGER a_plan_stays BEFORE UPDATE OF id, number, groups, digest, learning_rate, head_before, planned_at
ON steps
BEGIN
    SELECT RAISE(ABORT, 'a step is what it was planned to be');
END;

-- ... and ends once, by the rules (rules/steps.py). Only going back takes it out of the history.
CREATE TRIGGER a_step_ends_once BEFORE UPDATE OF state ON steps
WHEN NOT ((OLD.state = 'planned' AND NEW.state IN ('applied', 'skipped', 'abandoned'))
          OR (OLD.state IN ('applied', 'skipped') AND NEW.state = 'rolled_back'))
BEGIN
    SELECT RAISE(ABORT, 'a step ends once');
END;

CREATE TRIGGER what_a_step_made_stays BEFORE UPDATE OF checkpoint ON steps
WHEN NEW.checkpoint IS NOT OLD.checkpoint
     AND (OLD.state <> 'planned' OR NEW.state <> 'applied' OR NEW.checkpoint IS OLD.head_before)
BEGIN
    SELECT RAISE(ABORT, 'only a step that is applied has made a checkpoint, and another one than its head');
END;

CREATE TRIGGER a_step_is_applied_by_a_call BEFORE UPDATE OF state ON steps
WHEN NEW.state = 'applied' AND NOT EXISTS (SELECT 1 FROM calls WHERE step = NEW.id
     AND kind = 'optim_step' AND (ending IS NULL OR ending = 'confirmed'))
BEGIN
    SELECT RAISE(ABORT, 'a step without an optim_step that may have been applied');
END;

-- Going back to where it was refused takes nothing away.
CREATE TRIGGER a_refused_rollback_takes_nothing BEFORE UPDATE OF rollback ON steps
WHEN (SELECT state FROM rollbacks WHERE id = NEW.rollback) = 'refused'
BEGIN
    SELECT RAISE(ABORT, 'a rollback that was refused');
END;

CREATE TRIGGER a_rollback_ends_once BEFORE UPDATE OF state ON rollbacks WHEN OLD.state <> 'asked'
BEGIN
    SELECT RAISE(ABORT, 'a rollback ends once');
END;

-- A step's calls come while it is in hand, without an ending, ...
CREATE TRIGGER a_call_is_of_a_step_in_hand BEFORE INSERT ON calls
WHEN (SELECT state FROM steps WHERE id = NEW.step) <> 'planned'
BEGIN
    SELECT RAISE(ABORT, 'a call of a step that is over');
END;

CREATE TRIGGER a_call_begins_without_an_ending BEFORE INSERT ON calls
WHEN NEW.ending IS NOT NULL OR EXISTS (SELECT 1 FROM calls WHERE id = NEW.id)
BEGIN
    SELECT RAISE(ABORT, 'a call begins without an ending, under an id of its own');
END;

-- ... none on top of one that was refused, or whose outcome is unknown, which is the fence, ...
CREATE TRIGGER no_call_passes_a_fence BEFORE INSERT ON calls
WHEN EXISTS (SELECT 1 FROM calls WHERE step = NEW.step AND (ending IS NULL OR ending = 'rejected'))
BEGIN
    SELECT RAISE(ABORT, 'a call on top of one that failed or whose outcome is unknown');
END;

-- ... none after the one that steps, and that one on a gradient.
CREATE TRIGGER the_last_call_steps_on_a_gradient BEFORE INSERT ON calls
WHEN EXISTS (SELECT 1 FROM calls WHERE step = NEW.step AND kind = 'optim_step' AND ending = 'confirmed')
     OR (NEW.kind = 'optim_step' AND NOT EXISTS (SELECT 1 FROM calls WHERE step = NEW.step
         AND kind IN ('forward_backward', 'backward') AND ending = 'confirmed'))
BEGIN
    SELECT RAISE(ABORT, 'the last call of a step is its optim_step, on a gradient that was confirmed');
END;

-- A call is what was sent, and ends once.
CREATE TRIGGER a_call_stays BEFORE UPDATE OF id, step, kind, sent_at ON calls
BEGIN
    SELECT RAISE(ABORT, 'a call is what was sent');
END;

CREATE TRIGGER a_call_ends_once BEFORE UPDATE ON calls WHEN OLD.ending IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'a call ends once');
END;

-- Nothing of it is forgotten.
CREATE TRIGGER a_step_is_not_forgotten BEFORE DELETE ON steps
BEGIN
    SELECT RAISE(ABORT, 'a step is not forgotten');
END;

CREATE TRIGGER a_call_is_not_forgotten BEFORE DELETE ON calls
BEGIN
    SELECT RAISE(ABORT, 'a call is not forgotten');
END;

CREATE TRIGGER a_group_is_not_forgotten BEFORE DELETE ON groups
BEGIN
    SELECT RAISE(ABORT, 'a group is not forgotten');
END;

-- A group ends once, and has been trained on by a step that was applied.
CREATE TRIGGER a_group_begins_without_an_ending BEFORE INSERT ON groups WHEN NEW.ending IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'a group begins without an ending');
END;

CREATE TRIGGER a_group_ends_once BEFORE UPDATE OF ending, step ON groups WHEN OLD.ending IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'a group ends once');
END;

CREATE TRIGGER a_group_is_trained_on_by_a_step BEFORE UPDATE OF ending ON groups
WHEN NEW.ending = 'trained' AND NOT EXISTS (SELECT 1 FROM steps WHERE number = NEW.step
     AND state NOT IN ('abandoned', 'rolled_back') AND state = 'applied')
BEGIN
    SELECT RAISE(ABORT, 'a group is trained on by a step that was applied');
END;
