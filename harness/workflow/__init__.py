"""What the Snakefile imports: the DAG and its targets. No torch."""
