"""merge.py executed.ipynb draft-built.ipynb out.ipynb: markdown of the draft, code cells and metadata of the executed."""
import sys, ast, nbformat
ex, dr = (nbformat.read(f, 4) for f in sys.argv[1:3])
code = [c for c in ex.cells if c.cell_type == "code"]
k = 0
for i, c in enumerate(dr.cells):
    if c.cell_type == "code":
        e = code[k]; k += 1
        if "setup-colab" not in e.metadata.get("tags", []):
            assert ast.dump(ast.parse(e.source)) == ast.dump(ast.parse(c.source)), (c.source[:200], e.source[:200])
        e.metadata = {**e.metadata, **{x: y for x, y in c.metadata.items()}}  # alt texts of the draft
        e["id"] = c["id"]
        dr.cells[i] = e
assert k == len(code)
dr.metadata = ex.metadata
nbformat.write(dr, sys.argv[3])
print(len(dr.cells), "cells,", k, "code")
