"""Moving bytes: plan what is missing, fetch it from whoever has it, verify it while it arrives."""
