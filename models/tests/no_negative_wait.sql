-- Nothing is decided before it was opened. A second is allowed: some dates are in whole seconds, others are not.
SELECT source, instanceId, fingerprint, waitSeconds FROM fct_task WHERE waitSeconds < -1;
