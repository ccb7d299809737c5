-- Why: numbers have no gaps, and 0006 is the erasure's, which is built on another branch. Replaced by it at the merge.
SELECT 1;
