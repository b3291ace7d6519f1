def parse_condition(t): raise NotImplementedError
def parse_query(t, c=None): raise NotImplementedError
