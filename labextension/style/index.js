import '../../jupyter_agents/static/agent-views.css';
import './base.css';
