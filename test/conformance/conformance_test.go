// Package conformance runs containerd's own snapshotter suite against the daemon's socket, through
// the client that containerd itself uses for proxy plugins.
//
//	FAASNET_SNAPSHOTTER=/run/x.sock go test -count=1 -v -test.root ./...
//
// The suite's keys repeat: give the daemon an empty root for each run.
package conformance

import (
	"context"
	"os"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// suiteName is the only name under which the suite leaves out what no overlayfs without
// redirect_dir can do: rename a directory of a lower layer (the kernel answers EXDEV).
const suiteName = "overlayfs"

func TestSnapshotter(t *testing.T) {
	socket := os.Getenv("FAASNET_SNAPSHOTTER")
	if socket == "" {
		t.Fatal("FAASNET_SNAPSHOTTER names no socket")
	}
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	// Not deferred: the sub-tests run in parallel, after this function has returned.
	t.Cleanup(func() { _ = conn.Close() })
	open := func(context.Context, string) (snapshots.Snapshotter, func() error, error) {
		client := proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(conn), suiteName)
		return client, func() error { return nil }, nil
	}
	testsuite.SnapshotterSuite(t, suiteName, open)
}
