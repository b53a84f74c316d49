"""Tables and pictures of experiments and texts of benchmarks join the site: pages link to them as they do here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
SHOWN = (
    "experiments/*.md",
    "experiments/results/*.md",
    "experiments/results/*.png",
    "experiments/studies/*.yaml",
    "benchmarks/results/*.txt",
)
CERTIFICATES = ("md", "png", "html", "json")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages, pictures and texts."""
    found = [path for pattern in SHOWN for path in ROOT.glob(pattern)]
    for ending in CERTIFICATES:
        found += ROOT.glob(f"experiments/results/certificates/**/*.{ending}")
    for path in sorted(found):
        name = path.relative_to(ROOT).as_posix()
        files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """In the repository docs/ is beside experiments/ and benchmarks/; on the site docs/ is the root."""
    if page.file.src_uri.startswith("experiments/"):
        return markdown.replace("](../docs/", "](../").replace("](../../docs/", "](../../")
    for place in ("experiments", "benchmarks"):
        markdown = markdown.replace(f"](../../{place}/", f"](../{place}/").replace(f"](../{place}/", f"]({place}/")
    return markdown
