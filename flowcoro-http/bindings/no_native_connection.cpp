// Where FlowCoro has no native transports, connections are asyncio's.
#include <cerrno>

#include "connection.hpp"

namespace flowcoro_http::bindings {

int listen_natively(Engine& /*engine*/, flowcoro_handle /*descriptor*/,
                    flowcoro_listener** /*listener*/) noexcept {
    return -ENOSYS;
}

}  // namespace flowcoro_http::bindings
