//! Desired state, plan, apply and the agent that keeps a host's interfaces working.
