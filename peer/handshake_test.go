package peer

import (
	"testing"
	"testing/synctest"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/peer/internal/wiretest"
	"github.com/weircache/weir/ring"
)

// TestNamespaceDiffers checks that a namespace that differs is rejected on its own: its requests are misses, those of other
// namespaces go on, and both logs say so at the handshake.
func TestNamespaceDiffers(t *testing.T) {
	for _, secret := range []Secret{nil, secretOf("a")} {
		bubble(t, func(t *testing.T) {
			r := newRig()
			n1 := r.add(t, 1, Config{Secret: secret})
			n2 := r.add(t, 2, Config{Secret: secret, Join: []string{n1.Addr()}})
			for i, n := range []*Node{n1, n2} {
				if _, err := n.Register("price", uint64(i), wiretest.Value("p")); err != nil {
					t.Fatal(err)
				}
			}
			awaitNames(t, "n1 n2", n1, n2)
			for i, n := range []*Node{n1, n2} {
				other := []*Node{n2, n1}[i]
				var resp codec.Response
				req := codec.Request{Kind: codec.KindGet, Namespace: []byte("price"), Schema: uint64(i), Key: []byte("k")}
				if err := n.Call(t.Context(), memberOf(other), &req, &resp); err != nil || resp.Status != codec.StatusMismatch || len(resp.Value) > 0 {
					t.Errorf("%s: status %d, value %q, %v", n.Name(), resp.Status, resp.Value, err)
				}
				resp.Release()
			}
			mustServe(t, n1, n2)
			synctest.Wait()
			r.mustLog(t, "n1", "a namespace is not shared with a member", "namespace=price", "peer=n2", "here=0000000000000000", "there=0000000000000001")
			r.mustLog(t, "n2", "a namespace is not shared with a member", "namespace=price", "peer=n1", "here=0000000000000001")
		})
	}
}

// TestPlacementDiffers checks that members that place keys differently do not talk, however they learned of each other.
func TestPlacementDiffers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig()
		n1 := r.add(t, 1, Config{Secret: secretOf("a")})
		n2 := r.add(t, 2, Config{Secret: secretOf("a"), Ring: ring.Config{Partitions: 271}})
		r.mustRefuse(t, n2, n1, "Config.Ring differs", "Config.Ring differs")
	})
}
