"""Publishing an adapter: model card, sidecars, the hub, and what a leaderboard takes."""
