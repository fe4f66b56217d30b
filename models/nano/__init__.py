"""gar-nano: a small GAR that knows drawn shapes; its scenes, tasks, training and evaluation."""
