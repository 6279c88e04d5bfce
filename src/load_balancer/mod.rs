//! One file per load balancer, and the conformance suite that each of them passes.
