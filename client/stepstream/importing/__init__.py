"""Moving in: what another tracker has, into a StepStream server."""
