/* The header for other extensions is C11, and needs nothing but itself. */
#include "flowcoro/native_api.h"

static void received(void* context, flowcoro_transport* transport, const void* bytes, size_t size) {
    const flowcoro_native_api* api = (const flowcoro_native_api*)context;
    (void)api->write(transport, bytes, size);
}

static void closed(void* context, flowcoro_transport* transport, int error) {
    (void)context;
    (void)transport;
    (void)error;
}

static const flowcoro_protocol protocol = {
    .size = sizeof(flowcoro_protocol), .received = received, .closed = closed};

int main(void) {
    const flowcoro_native_api empty = {0};
    /* What was published stays where it is. */
    const int moved =
        offsetof(flowcoro_native_api, reactor_of) != 2 * sizeof(uint32_t) + sizeof(size_t) ||
        offsetof(flowcoro_native_api, timer_destroy) + 3 * sizeof(void*) != sizeof empty;
    return moved || protocol.connected != 0 || empty.size != 0;
}
