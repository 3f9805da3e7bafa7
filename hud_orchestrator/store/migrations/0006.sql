-- What no code may do, the store refuses: see schema.sql.
-- Nobody knows whether the calls that there are were all made under a lease.

INSERT INTO meta (key, value) SELECT 'unfenced', 'yes' WHERE EXISTS (SELECT 1 FROM calls);

-- What must never be is refused here, whatever asks for it: a step's calls come while it is in hand, ...
CREATE TRIGGER a_call_is_of_a_step_in_hand BEFORE INSERT ON calls
WHEN (SELECT state FROM steps WHERE id = NEW.step) <> 'planned'
BEGIN
    SELECT RAISE(ABORT, 'a call of a step that is over');
END;

-- ... and none on top of one that was refused, or whose outcome is unknown: the fence.
CREATE TRIGGER no_call_passes_a_fence BEFORE INSERT ON calls
WHEN EXISTS (SELECT 1 FROM calls WHERE step = NEW.step AND (ending IS NULL OR ending = 'rejected'))
BEGIN
    SELECT RAISE(ABORT, 'a call on top of one that failed or whose outcome is unknown');
END;

-- A call ends once.
CREATE TRIGGER a_call_ends_once BEFORE UPDATE OF ending ON calls WHEN OLD.ending IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'a call ends once');
END;

-- A step ends once, and only going back takes it out of the history.
CREATE TRIGGER a_step_ends_once BEFORE UPDATE OF state ON steps
WHEN OLD.state <> 'planned' AND NOT (OLD.state IN ('applied', 'skipped') AND NEW.state = 'rolled_back')
BEGIN
    SELECT RAISE(ABORT, 'a step ends once');
END;

-- A group ends once.
CREATE TRIGGER a_group_ends_once BEFORE UPDATE OF ending ON groups WHEN OLD.ending IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'a group ends once');
END;
