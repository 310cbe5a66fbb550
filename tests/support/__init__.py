"""What tests share: small committees and campaigns, labelled frames, a disk that fails, the contract of a store."""
