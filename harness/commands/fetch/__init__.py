"""`dsr fetch`: the one command that uses the network. What a study lacks, where it is, and the bytes."""
