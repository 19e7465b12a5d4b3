"""Who may: what others have proven, what policies say of it, and how a node gets credentials of an authority."""
