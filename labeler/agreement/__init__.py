"""How far labelers agree, and what else their rankings show without their meaning to: the audits.

`measures` compares rank vectors of one quintet; `tallies` adds up many at once; `figures` makes of such sums
the numbers that pages show, with their intervals; `folding` keeps the sums of every project up to date;
`audits` says in words what stands out. People are compared with people and simulated labelers with each
other, never across. Only `measures` is imported here: the others need numpy, which most pages do without."""

from labeler.agreement.measures import compared, of_quintet, tau_b

__all__ = ["compared", "of_quintet", "tau_b"]
