package rpc

import (
	"context"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// ofServers reports whether the calls of a method are those of the cluster's own
// servers and operators: who may make them can make the cluster forget writes,
// lose members or believe in nodes that are none.
func ofServers(method string) bool {
	switch method {
	case freshetv1.ClusterService_JoinRaft_FullMethodName, freshetv1.ClusterService_RemoveRaft_FullMethodName,
		freshetv1.ClusterService_TransferLeadership_FullMethodName, freshetv1.ClusterService_BumpEpoch_FullMethodName,
		freshetv1.ClusterService_JoinPeers_FullMethodName, freshetv1.ClusterService_LeavePeers_FullMethodName,
		freshetv1.BatchService_Permits_FullMethodName, freshetv1.BatchService_Completes_FullMethodName,
		freshetv1.EventService_PostEvents_FullMethodName: // its caller says who is trusted
		return true
	}
	return strings.HasPrefix(method, "/"+freshetv1.NodeService_ServiceDesc.ServiceName+"/") ||
		strings.HasPrefix(method, "/"+freshetv1.StateService_ServiceDesc.ServiceName+"/")
}

// checkCertificate refuses callers without a certificate of the authority that
// the connection was checked against.
func checkCertificate(ctx context.Context, method string) error {
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok && len(info.State.VerifiedChains) > 0 {
			return nil
		}
	}
	return freshet.Errorf(freshet.KindPermission, "call", "", "%s needs a client certificate of the cluster's authority", method[strings.LastIndexByte(method, '/')+1:])
}
