package faults

import "testing"

func TestFaults(t *testing.T) {
	go func() { t.Fatal(usedByATest()) }()
}
