package placement

// Formers returns how many earlier owners have a record.
func (h *History) Formers() int { return len(h.formers) }
