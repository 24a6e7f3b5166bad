package trust

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"testing"
)

// TestDerivedKeysStay checks that derived keys differ by purpose and by secret, and stay the same for all time, because
// nodes of different versions of weir must agree on them.
func TestDerivedKeysStay(t *testing.T) {
	secret := sha256.Sum256([]byte("a"))
	got := ""
	for _, purpose := range []string{purposeGossip, purposeAuthority} {
		key, err := derive(secret[:], purpose)
		if err != nil {
			t.Fatal(err)
		}
		got += hex.EncodeToString(key[:8]) + " "
	}
	a, err := newAuthority(secret[:])
	if err != nil {
		t.Fatal(err)
	}
	again, err := newAuthority(secret[:])
	if err != nil || !bytes.Equal(a.cert.Raw, again.cert.Raw) {
		t.Errorf("the authority differs from call to call: %v", err)
	}
	if got += a.id; got != "b32c1bb73f90f697 e0b2353f32f16e80 a1ea8b15" {
		t.Errorf("derived: %s", got)
	}
}
