-- Rollouts that were sampled elsewhere have no tokens here, and train by their trace id.

ALTER TABLE rollouts ADD COLUMN remote INTEGER NOT NULL DEFAULT 0;
