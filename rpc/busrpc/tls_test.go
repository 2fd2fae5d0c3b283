package busrpc_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/crosscluster"
	"github.com/freshet-io/freshet/crosscluster/membus"
	"github.com/freshet-io/freshet/invalidation"
	busv1 "github.com/freshet-io/freshet/proto/freshet/bus/v1"
	"github.com/freshet-io/freshet/rpc/busrpc"
)

// certificate makes a self-signed one with the identity.
func certificate(t *testing.T, identity string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	uri, err := url.Parse(identity)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		URIs: []*url.URL{uri}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestACallerIsWhoItsCertificateNames(t *testing.T) {
	east, west := certificate(t, "spiffe://freshet/cluster/east/coordinator"), certificate(t, "spiffe://freshet/cluster/west/coordinator")
	pool := x509.NewCertPool()
	for _, c := range []tls.Certificate{east, west} {
		leaf, err := x509.ParseCertificate(c.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		pool.AddCert(leaf)
	}
	cluster := membus.NewCluster(invalidation.Publisher{Cluster: uuid.UUID{1}, Name: "east", Epoch: 1}, &membus.Order{})
	cluster.Lead(0)
	t.Cleanup(func() { cluster.Lead(-1) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{east}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
	})))
	busrpc.Register(server, crosscluster.New(cluster.Member(0, "c1"), nil, crosscluster.Options{}))
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	peer, err := busrpc.Dial(l.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{west}, RootCAs: pool, MinVersion: tls.VersionTLS13,
	})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	say := func(name string) *busv1.ClusterInfo {
		id := uuid.NewSHA1(uuid.Nil, []byte(name))
		return &busv1.ClusterInfo{ClusterId: id[:], Name: name, Epoch: 1, ProtocolMin: 1, ProtocolMax: 1}
	}
	if _, err := peer.Hello(ctx, &busv1.HelloRequest{Cluster: say("west")}); err != nil {
		t.Errorf("the right name was refused: %v", err)
	}
	if _, err := peer.Hello(ctx, &busv1.HelloRequest{Cluster: say("north")}); freshet.KindOf(err) != freshet.KindPermission {
		t.Errorf("hello under another name: %v", err)
	}
	requests := make(chan *busv1.SubscribeRequest, 1)
	requests <- &busv1.SubscribeRequest{Cluster: say("north")}
	err = peer.Subscribe(ctx, requests, func(*busv1.SubscribeResponse) error { return nil })
	if freshet.KindOf(err) != freshet.KindPermission {
		t.Errorf("stream under another name: %v", err)
	}
}
