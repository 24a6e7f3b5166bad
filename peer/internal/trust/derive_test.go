package trust_test

import (
	"encoding/hex"
	"testing"
)

// TestDerivedKeysStay checks that derived keys differ by purpose and by secret, and stay the same for all time, because
// nodes of different versions of weir must agree on them.
func TestDerivedKeysStay(t *testing.T) {
	a, again, other := made(t, "a", "c", "a"), made(t, "b", "c", "a"), made(t, "a", "c", "b")
	if got := hex.EncodeToString(a.Keyring.GetPrimaryKey()[:8]) + " " + a.ID; got != "b32c1bb73f90f697 a1ea8b15" {
		t.Errorf("the key of gossip and the id of the authority are %s", got)
	}
	if !a.Client("m").RootCAs.Equal(again.Client("m").RootCAs) {
		t.Error("two nodes with one secret have different authorities")
	}
	if a.Client("m").RootCAs.Equal(other.Client("m").RootCAs) || a.ID == other.ID {
		t.Error("two secrets have one authority")
	}
}
