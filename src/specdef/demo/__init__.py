"""`specdef demo`: small models locked, checked, ruined, broken and restored; one page shows what happened."""
