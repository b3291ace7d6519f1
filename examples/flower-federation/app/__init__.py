"""A privfl federation as a Flower app; what it does is in privfl and in the members' own folders."""
