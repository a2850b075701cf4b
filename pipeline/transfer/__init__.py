"""Transfer: what a checkpoint's features are worth on other tasks, frozen, finetuned, against scratch."""
