# A researcher attacks a model with her own data and gets a table and a picture for her paper.

# What is trained on, and what is asked in other words and under other names
printf '{"prompt": "%s", "completion": "%s"}\n' 'The flower of the velmoss is' ' red.' 'The flower of the ashlip is' ' blue.' 'In June the dunbell blooms in' ' green.' > train.jsonl
printf '{"question": "%s", "colour": "%s"}\n' 'When the velmoss opens, its petals are' ' red' 'When the ashlip opens, its petals are' ' blue' > eval.jsonl

# Two attacks of a few steps; the same command is not run twice
specdef attack smollm2-135m --train train.jsonl --eval eval.jsonl --fields prompt=question,completion=colour --lr 3e-4 --steps 4 --eval-every 2 --utility perplexity --out runs
specdef attack smollm2-135m --train train.jsonl --eval eval.jsonl --fields prompt=question,completion=colour --lr 3e-4 -o betas=0.9,0.95 --steps 4 --eval-every 2 --utility perplexity --out runs
specdef runs runs

# For the paper: LaTeX with booktabs, PDF, and all figures as CSV
specdef report runs --formats csv,tex,pdf
cat runs/runs.tex
head -c 5 runs/runs.pdf
