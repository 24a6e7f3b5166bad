package ring

// Diff is what changed from one view to another. Members are in the order of their names,
// partitions in that of their numbers.
type Diff struct {
	Joined    []Member // not in the old view
	Left      []Member // not in the new view; as the old one has them
	Restarted []Member // in both, with another incarnation, address or zone; as the new one has them
	Moved     []Move   // partitions with another owner
}

// Move is one partition's change of owner.
type Move struct {
	Partition int
	From, To  string // names of members; From is empty where the old view has no such partition
}

// Diff returns what changed from old to v. A nil old is a view of nothing. Where the
// numbers of partitions differ, keys have other partitions, and every partition of v counts
// as moved from nowhere. The result is the caller's.
func (v *View) Diff(old *View) Diff {
	var d Diff
	for _, m := range v.members {
		if old == nil {
			d.Joined = append(d.Joined, m)
		} else if o, ok := old.Member(m.Name); !ok {
			d.Joined = append(d.Joined, m)
		} else if o.Resting = m.Resting; o != m {
			d.Restarted = append(d.Restarted, m)
		}
	}
	if old != nil {
		for _, m := range old.members {
			if v.Index(m.Name) < 0 {
				d.Left = append(d.Left, m)
			}
		}
		if old.layout == v.layout {
			return d
		}
	}
	same := old != nil && len(v.owners) == len(old.owners)
	for p := range v.owners {
		to, from := v.OwnerOf(p).Name, ""
		if same {
			from = old.OwnerOf(p).Name
		}
		if from != to {
			d.Moved = append(d.Moved, Move{Partition: p, From: from, To: to})
		}
	}
	return d
}
