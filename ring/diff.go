package ring

// Diff describes what changed from one view to another. Members are in the order of their names, partitions
// in the order of their numbers.
type Diff struct {
	Joined    []Member // not in the old view
	Left      []Member // not in the new view; as in the old view
	Restarted []Member // in both, with another incarnation, address or zone; as in the new view
	Moved     []Move   // partitions with another owner
}

// Move is one partition's change of owner.
type Move struct {
	Partition int
	From, To  string // names of members; From is empty where the old view has no such partition
}

// Diff returns what changed from old to v. A nil old counts as an empty view. If the two views have different
// numbers of partitions, keys belong to other partitions, and every partition of v counts as moved from
// nowhere. The caller owns the result.
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
